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

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.checkpoints import ShardCheckpoints
from actors.lake_appender_actor import LakeAppenderLoop
from actors.shard_writer_actor import ShardWriterLoop
from actors.stack import Stack
from cluster import batch
from cluster.config import LakeSettings, LogSettings, Settings, ShardSettings
from cluster.embedded import Role, Running, ServerSpec, ensure, kill, kill_server, server_spec
from cluster.errors import IntelGraphError
from cluster.fold import hash_lines
from cluster.model import Record
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.log import EventLog
from cluster.stores.shard_export import export_lines, state_lines
from serve_apps.node import raise_epoch_before_serving
from tests.fault_proxy import FaultProxy

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


class Installation:
    """See the module. `folder` is the state directory; it has to be short, for the sockets in it."""

    def __init__(
        self, folder: Path, shards: int = 2, partitions: int = 4, lease_s: float = 10.0, **sections: Any
    ) -> None:
        self.partitions = partitions
        sections = {
            "log": LogSettings(partitions=partitions, block_ms=50, timeout_s=5.0, read_entries=8),
            "shards": ShardSettings(embedded=shards, write_rows=200, timeout_s=5.0, lease_s=lease_s),
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
        self.stack.publish_first_map(self.stack.register_embedded())
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
            self.start_lake()
        return self

    def start_lake(self) -> None:
        """The lake appender's loop; where it runs already, nothing."""
        if self.lake is None:
            self.lake = LakeAppenderLoop(self.stack)
            self._run(self.lake, "lake")

    def stop_lake(self) -> None:
        """End it in order."""
        self._end(self.lake)
        self.lake = None

    def start_writer(self, shard: str) -> ShardWriterLoop:
        """Another writer loop of a shard."""
        loop = self.writers[shard] = ShardWriterLoop(self.stack, shard)
        self._run(loop, shard)
        return loop

    def stop_writer(self, shard: str) -> None:
        """End a shard's writer loop in order."""
        self._end(self.writers.pop(shard))

    def _end(self, loop: Any) -> None:
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
