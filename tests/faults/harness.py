"""One installation without Ray for fault runs: log, two shards, control store, lake, and their loops as threads.

    with Installation(folder) as system:
        system.start()                                  # servers, then writers, lake appender, checkpoints
        history = Producer(system, events(seed, 3000)).send()
        … faults …
        system.settle()                                 # until every cursor is at the log's end
        check(system, history)

The loops are those that the actors run. A server that a test kills is started again by the test, with the same step
before serving that the node takes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from actors.checkpoints import ShardCheckpoints
from actors.lake_appender_actor import LakeAppenderLoop
from actors.shard_writer_actor import ShardWriterLoop
from actors.stack import Stack
from cluster import batch
from cluster.config import LakeSettings, LogSettings, Settings, ShardSettings
from cluster.embedded import Role, Running, ServerSpec, ensure, kill, kill_server, server_spec
from cluster.errors import Fenced, IntelGraphError, OutcomeUnknown, Retryable
from cluster.fold import Fold, hash_lines
from cluster.ids import bucket_of
from cluster.model import Kind, Op, Record
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.log import Append, EventLog
from cluster.stores.shard_export import export_lines, state_lines
from serve_apps.node import raise_epoch_before_serving
from tests.fault_proxy import FaultProxy
from tests.strategies import make

MEMORY_BYTES = 512 << 20
DEADLINE_S = 30.0


def wait_until(what: Callable[[], bool], deadline_s: float = DEADLINE_S, message: str = "") -> None:
    """Polls until it is true. Raises AssertionError after the deadline; an operating error counts as not yet."""
    end = time.monotonic() + deadline_s
    while True:
        with suppress(IntelGraphError):
            if what():
                return
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {message or what}"
        time.sleep(0.02)


def events(seed: int, count: int, tenants: int = 3, start: int = 1) -> list[Record]:
    """Uniquely numbered events (the position is the number, and a property says it) over several tenants.

    Entities of two sources, relationships whose ends change, claims, deletes; few enough things that they collide.
    """
    rnd = random.Random(seed)
    return [_event(rnd, number, tenants, max(20, count // 8)) for number in range(start, start + count)]


def _event(rnd: random.Random, number: int, tenants: int, things: int) -> Record:
    tenant, case = f"tenant-{rnd.randrange(tenants)}", f"case-{rnd.randrange(4)}"
    op = Op.DELETE if rnd.random() < 0.1 else Op.UPSERT
    source = rnd.choice(("crm", "crm", "feed"))
    props = f'{{"n":{number},"name":"{tenant} thing {number}"}}'
    kind = rnd.random()
    ident = str(rnd.randrange(things))
    ends = ("person", str(rnd.randrange(things)), "person", str(rnd.randrange(things)))
    if kind < 0.6:
        return make(tenant, case, Kind.ENTITY, "person", ident, source, number, op, props=props)
    if kind < 0.95:
        return make(
            tenant, case, Kind.RELATIONSHIP, rnd.choice(("KNOWS", "OWNS")), ident, "crm", number, op, ends, props
        )
    claim = f'["age",{number},null]'
    return make(tenant, case, Kind.CLAIM, "statement", ident, source, number, op, (*ends[:2], "", ""), props, claim)


@dataclass
class History:
    """What a producer knows: every event invoked, acknowledged (ok) or of unknown outcome (info)."""

    invoked: set[Record] = field(default_factory=set)
    ok: set[Record] = field(default_factory=set)
    info: set[Record] = field(default_factory=set)


class Producer:
    """Appends events to the log in batches, again after every error that may pass, until each is acknowledged.

    Args:
        rate_per_s: events a second, at most; None: as fast as it goes.
    """

    def __init__(
        self, system: Installation, records: Sequence[Record], batch_records: int = 50, rate_per_s: float | None = None
    ) -> None:
        self._system, self._records, self._batch_records = system, records, batch_records
        self._batch_s = batch_records / rate_per_s if rate_per_s else 0.0
        self.history = History()
        self.invoked_at = time.time()
        """When the batch that is not acknowledged yet was sent first."""
        self.sent = self.refused = 0
        self.stopping = False
        self._thread = threading.Thread(target=self.send, name="producer", daemon=True)

    @property
    def total(self) -> int:
        """How many events there are to send."""
        return len(self._records)

    def start(self) -> Producer:
        """Send in the background."""
        self._thread.start()
        return self

    def join(self, deadline_s: float = DEADLINE_S) -> History:
        """Wait until all is sent."""
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), f"sent only {self.sent} of {len(self._records)}"
        return self.history

    def send(self) -> History:
        """Send everything; blocks."""
        while self.sent < len(self._records) and not self.stopping:
            rows = self._records[self.sent : self.sent + self._batch_records]
            self.history.invoked.update(rows)
            self.invoked_at = time.time()
            if not self._sent(rows):
                break
            self.history.ok.update(rows)
            self.sent += len(rows)
            time.sleep(max(0.0, self.invoked_at + self._batch_s - time.time()))
        return self.history

    def _sent(self, rows: Sequence[Record]) -> bool:
        """Sends a batch until it is acknowledged; false where the producer is stopped before."""
        while not self.stopping:
            try:
                self._system.log.append(entries_of(rows, self._system.partitions))
            except Retryable as error:
                self.refused += 1
                if isinstance(error, OutcomeUnknown):
                    self.history.info.update(rows)
                time.sleep(0.05)
                continue
            return True
        return False


def entries_of(records: Iterable[Record], partitions: int) -> list[Append]:
    """Log entries of records, one a partition."""
    by_partition: dict[int, list[Record]] = {}
    for record in records:
        by_partition.setdefault(record.bucket % partitions, []).append(record)
    return [Append(p, batch.encode(rows), len(rows)) for p, rows in sorted(by_partition.items())]


class Installation:
    """See the module. `folder` is the state directory; it has to be short, for the sockets in it."""

    def __init__(self, folder: Path, shards: int = 2, partitions: int = 4, **sections: Any) -> None:
        self.partitions = partitions
        sections = {
            "log": LogSettings(partitions=partitions, block_ms=50, timeout_s=5.0, read_entries=8),
            "shards": ShardSettings(embedded=shards, write_rows=200, timeout_s=5.0),
            "lake": LakeSettings(commit_s=0.3),
            **sections,
        }
        self.settings = Settings(state_dir=folder, **sections)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stack = Stack(self.settings)
        self.shard_ids = [f"shard-{n}" for n in range(shards)]
        self.running: dict[str, Running] = {}
        self._loops: list[tuple[Any, threading.Thread]] = []
        self.writers: dict[str, ShardWriterLoop] = {}
        self.lake: LakeAppenderLoop | None = None
        self._checkpoints: dict[str, ShardCheckpoints] = {}

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop_loops()
        for saves in self._checkpoints.values():
            saves.close()
        if "log" in self.__dict__:
            self.log.close()
        for name in ("log", *self.shard_ids):
            kill_server(self.spec(name))
        self.stack.control.close()

    # --- servers

    def spec(self, name: str) -> ServerSpec:
        """Where a server lives."""
        return server_spec(self.stack.state_dir, Role.LOG if name == "log" else Role.SHARD, name, MEMORY_BYTES)

    def start_servers(self) -> None:
        """Log and shards, as the node starts them."""
        self.stack.register_embedded()
        for name in ("log", *self.shard_ids):
            self.restart(name)
        self.stack.control.positions.bind_log(self.log.identity)
        now = time.time()
        current = self.stack.current_map()
        for shard in self.shard_ids:
            self.stack.control.positions.register(shard, current.partitions_of(shard), now)

    def restart(self, name: str) -> None:
        """Start a server that is down, or adopt it."""
        spec = self.spec(name)
        self.running[name] = ensure(spec, raise_epoch_before_serving(self.stack, spec))

    def kill(self, name: str) -> None:
        """SIGKILL a server."""
        kill(self.running[name])

    def saves(self, shard: str) -> ShardCheckpoints:
        """What the node's checkpoint thread of a shard has."""
        if shard not in self._checkpoints:
            positions, mine = self.stack.control.positions, self.stack.current_map().partitions_of(shard)
            self._checkpoints[shard] = ShardCheckpoints(shard, lambda: self.stack.open_shard(shard), positions, mine)
        return self._checkpoints[shard]

    def checkpoint(self, shard: str) -> None:
        """Save a shard; again where the connection is of the server before."""

        def saved() -> bool:
            self.saves(shard).save(self.running[shard])
            return True

        wait_until(saved, message=f"{shard} saved")

    # --- loops

    def start(self, lake: bool = False) -> Installation:
        """Servers, then a writer for each shard, then the lake appender if it is wanted."""
        self.start_servers()
        for shard in self.shard_ids:
            self.start_writer(shard)
        if lake:
            self.lake = LakeAppenderLoop(self.stack)
            self._run(self.lake, "lake")
        return self

    def start_writer(self, shard: str) -> ShardWriterLoop:
        """Another writer loop of a shard."""
        loop = self.writers[shard] = ShardWriterLoop(self.stack, shard)
        self._run(loop, shard)
        return loop

    def stop_writer(self, shard: str) -> None:
        """End a shard's writer loop in order."""
        loop = self.writers.pop(shard)
        loop.stop()
        for pair in [p for p in self._loops if p[0] is loop]:
            pair[1].join(DEADLINE_S)
            self._loops.remove(pair)

    def _run(self, loop: Any, name: str) -> None:
        thread = threading.Thread(target=loop.run, name=name, daemon=True)
        thread.start()
        self._loops.append((loop, thread))

    def stop_loops(self) -> None:
        """End all loops in order."""
        for loop, _ in self._loops:
            loop.stop()
        for loop, thread in self._loops:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), f"{loop} does not end"
        self._loops.clear()
        self.writers.clear()
        self.lake = None

    # --- what can be asked

    def opened(self) -> list[FalkorShard]:
        """A connection of its own to each shard; close them."""
        return [self.stack.open_shard(shard) for shard in self.shard_ids]

    def positions(self, shard: str) -> dict[int, int]:
        """A shard's cursors as the shard itself has them."""
        opened = self.stack.open_shard(shard)
        try:
            return {p: c.at for p, c in opened.cursors().items()}
        finally:
            opened.close()

    @contextmanager
    def behind_proxy(self, name: str) -> Iterator[FaultProxy]:
        """A proxy where everybody looks for a running server; who connected before is not behind it."""
        socket = self.running[name].socket
        far = socket.rename(socket.with_suffix(".far"))
        try:
            with FaultProxy.unix(far, socket) as proxy:
                yield proxy
        finally:
            far.rename(socket)

    @cached_property
    def log(self) -> EventLog:
        """A connection to the log for what the tests do themselves; opened before the load begins."""
        return self.stack.open_log()

    def ends(self) -> dict[int, int]:
        """The log's ends."""
        return self.log.ends()

    def is_current(self, shard: str) -> bool:
        """Whether a shard serves and has applied all that the log has for it."""
        opened = self.stack.open_shard(shard)
        try:
            state = opened.state()
            epoch = self.stack.control.shards.get(shard).epoch
            at, ends = opened.cursors(), self.ends()
            mine = self.stack.current_map().partitions_of(shard)
            serves = state is not None and state.serving == state.raised == epoch
            return serves and all(p in at and at[p].at >= ends[p] for p in mine)
        finally:
            opened.close()

    def settle(self, *shards: str, deadline_s: float = DEADLINE_S) -> None:
        """Waits until shards (all) have applied the log and serve."""
        for shard in shards or self.shard_ids:
            writer = self.writers.get(shard)
            wait_until(
                lambda shard=shard: self.is_current(shard),  # type: ignore[misc]
                deadline_s,
                f"{shard} current; its writer: {writer.status if writer else None}",
            )

    def begins(self) -> dict[int, int]:
        """The log's first entries."""
        return self.log.begins()

    def settle_partly(self, shard: str) -> None:
        """Waits until a shard has applied what the log has now; more may come meanwhile."""
        ends = self.ends()
        mine = self.stack.current_map().partitions_of(shard)
        wait_until(lambda: all(self.positions(shard).get(p, 0) >= ends[p] for p in mine), message=f"{shard} goes on")

    def log_records(self) -> list[tuple[int, int, list[Record]]]:
        """(partition, number, records) of every entry that log and lake have, in order."""
        found = []
        begins, ends = self.log.begins(), self.log.ends()
        for partition, begin in begins.items():
            if begin > 1:
                with self.stack.open_lake() as lake:
                    for entry in lake.entries(partition, 0, begin - 1):
                        found.append((partition, entry.number, batch.from_arrow(entry.batch)))
            after = begin - 1
            while after < ends[partition]:
                for one in self.log.read(partition, after, 64, 8 << 20):
                    found.append((partition, one.number, batch.decode(one.data)))
                    after = one.number
        return found

    def hashes(self) -> tuple[str, str]:
        """Hashes of export and state, over all shards."""
        shards = self.opened()
        try:
            return hash_lines(export_lines(shards)), hash_lines(state_lines(shards))
        finally:
            for shard in shards:
                shard.close()


def check(system: Installation, *histories: History) -> Fold:
    """I1–I6 for everything that was sent; the log is the truth between the producers and the shards.

    Returns:
        the sequential fold that shards were held against.
    """
    logged = [(p, n, r) for p, n, rows in system.log_records() for r in rows]
    truth = {r for _, _, r in logged}
    for history in histories:
        assert history.ok <= truth, "acknowledged and lost"
        assert history.ok | history.info <= history.invoked, "acknowledged and never sent"
    if histories:
        assert truth <= set().union(*(h.invoked for h in histories)), "in the log and never sent"
    fold = Fold().apply_all(r for _, _, r in logged)
    shards = system.opened()
    try:
        assert export_lines(shards) == fold.export_lines()
        assert state_lines(shards) == fold.state_lines()
        _check_owners(system, shards)
        _check_outcomes(system, shards, logged)
    finally:
        for shard in shards:
            shard.close()
    return fold


def _check_owners(system: Installation, shards: Sequence[FalkorShard]) -> None:
    current = system.stack.current_map()
    for name, shard in zip(system.shard_ids, shards, strict=True):
        state = shard.state()
        assert state is not None
        assert state.owned == frozenset(current.buckets_of(name)), "owners differ"
        for tenant, case in shard.cases():
            assert current.owners[bucket_of(tenant, case)] == name, "a case where it does not belong"
            for thing in shard.things(tenant, case):
                for register in thing.registers.values():
                    owner, made_here, _ = register.props.partition('"name":"')[2].partition(" thing ")
                    assert not made_here or owner == tenant, "a record crossed a tenant"


def _check_outcomes(
    system: Installation, shards: Sequence[FalkorShard], logged: Sequence[tuple[int, int, Record]]
) -> None:
    """Each record of each log entry has one outcome, counted once, however often it was applied."""
    current = system.stack.current_map()
    for name, shard in zip(system.shard_ids, shards, strict=True):
        mine = sum(r.kind < Kind.FLOOR and current.owners[r.bucket] == name for _, _, r in logged)
        cursors = shard.cursors().values()
        assert sum(c.records for c in cursors) == mine
        assert sum(c.applied + c.duplicate + c.stale for c in cursors) == mine
        assert sum(o.total for o in shard.outcomes().values()) == mine


class Reader:
    """Reads a shard as queries do, all the time: what it is let in to see must be complete up to the log's ends of
    the moment in which the shard's server started (I: nothing stale is served as fresh)."""

    def __init__(self, system: Installation, shard: str) -> None:
        self._system, self._shard = system, shard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader-{shard}", daemon=True)
        self.floor: dict[int, int] = {}
        self.stale: list[tuple[dict[int, int], dict[int, int]]] = []
        self.served = self.refused = 0

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)

    def expect(self, floor: dict[int, int]) -> None:
        """From now on nothing below these positions may be served."""
        self.floor = dict(floor)

    def _run(self) -> None:
        shard: FalkorShard | None = None
        while not self._stopping.is_set():
            try:
                shard = shard or self._system.stack.open_shard(self._shard)
                self._look(shard)
            except IntelGraphError:
                if shard is not None:
                    shard.close()
            self._stopping.wait(0.005)
        if shard is not None:
            shard.close()

    def _look(self, shard: FalkorShard) -> None:
        floor = dict(self.floor)
        epoch = self._system.stack.control.shards.get(self._shard).epoch
        rows = shard.read(
            "MATCH (m:_Shard {_k: 'shard'}) WHERE m.epoch = $epoch MATCH (c:_Cursor) RETURN c._k, c.at",
            {"epoch": epoch},
        )
        if not rows:
            self.refused += 1
            return
        at = {int(p): n for p, n in rows}
        self.served += 1
        if any(at.get(p, 0) < n for p, n in floor.items()):
            self.stale.append((at, floor))


def is_long(seed: int, short: int = 1) -> bool:
    """Whether a run is one of `make chaos`: with 20,000 events, and held against the bounds in seconds."""
    return seed > short


def seeds(short: int, long: int) -> list[Any]:
    """Parameters of a run: the first seeds in `make test`, those up to `long` under the marker `chaos`."""
    marks = [() if seed <= short else (pytest.mark.chaos,) for seed in range(1, short + long + 1)]
    return [pytest.param(seed, id=f"seed{seed}", marks=mark) for seed, mark in enumerate(marks, 1)]


__all__ = ["Fenced", "History", "Installation", "Producer", "Reader", "check", "events", "seeds", "wait_until"]
