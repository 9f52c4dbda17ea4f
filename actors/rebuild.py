"""A shard is rebuilt from lake and log while the others serve.

    no change of ownership meanwhile → lake and log reach back to the beginning → its writer pauses
        → what it holds is noted, if that is to be compared, at the log's ends → its epoch is raised: readers wait
        → its buckets are marked as lacking → emptied, its cursors last, with what they counted
        → `shard_start` heals it, as a shard that came back empty, up to the positions of the beginning → compared
        → the leases are given back: its own writer goes on, and lets readers in

Whoever calls this may be killed at any moment: leases expire, and the shard's own writer heals what it finds, since
buckets marked as lacking are rebuilt whole, and cursors at 0 begin again. The same call again begins again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from actors import away
from actors.keeping import Kept
from actors.noted_state import Difference, NotedState, forget, note
from actors.ownership import alone, paused
from actors.reach import check_reach
from actors.shard_start import Start, UpTo, start_writer
from actors.shard_writer import ShardWriter
from actors.stack import Stack
from cluster.errors import Corrupt, Rejected, Unavailable
from cluster.shard_map import ShardMap
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.graph import Fence, GraphShard
from cluster.stores.log import EventLog, check_tails
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.rebuild")
_BLOCK_MS = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is.

    Args:
        step: what it does: `noting`, `emptying`, `healing`, `comparing`.
        records: applied again so far. left: log entries that are not.
        records_per_s: since healing began.
    """

    step: str
    records: int = 0
    records_per_s: float = 0.0
    entries: int = 0
    left: int = 0


Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Args:
        records: applied again, up to `at` (log partition → entry).
        lines: of the state that was compared; None where none was.
    """

    shard: str
    epoch: int
    records: int
    at: dict[int, int]
    seconds: float
    lines: int | None = None
    sha256: str | None = None


class StateDiffers(Corrupt):
    """A shard holds something else after its rebuild than before, at the same log positions."""


def rebuild(
    stack: Stack, shard_id: str, actor: str, *, verify: bool = False, tell: Tell = lambda progress: None,
    failpoint: Failpoint = no_failpoint,
) -> Rebuilt:  # fmt: skip
    """Empty a shard and have it heal from lake and log. Blocks until it has reached the log's ends of the beginning;
    its own writer then lets readers in. After a crash, call it again.

    Args:
        actor: who asks for it, for the audit.
        verify: compare registers, tombstones, floors and versions before and after, at the same log positions.
        failpoint: called with `paused`, `noted`, `raised`, `refused`, `marked`, `emptying`, `emptied`, `begun again`,
            `filled`, `healed`, `compared`.

    Raises:
        NotFound: there is no such shard.
        Rejected: it owns nothing, or lake and log do not reach back to the beginning; nothing has changed.
        Conflict: another rebuild or change of ownership is at work; nothing has changed.
        StateDiffers: what it holds now is not what it held; it serves what lake and log say.
        Fenced, Unavailable: a store does not answer or another took over: its own writer heals it. Call it again.
    """
    stack.control.shards.get(shard_id)
    with alone(stack, f"rebuilding {shard_id}") as change, closing(stack.open_log()) as log:
        current = stack.current_map()
        if shard_id not in current.shards:
            raise Rejected(f"{shard_id} owns no bucket, so it holds nothing that could be rebuilt")
        check_reach(stack, log, current.partitions_of(shard_id))
        with paused(stack, [shard_id]) as held, _keeping(stack, held, change) as kept:
            (lease,) = held.values()
            run = _Run(stack, shard_id, current, log, lease, kept, tell, failpoint)
            return run.rebuild(actor, verify)


def _keeping(stack: Stack, held: Mapping[str, int], change: tuple[str, int]) -> Kept:
    return Kept(stack.control.leases, {**held, change[0]: change[1]}, stack.settings.shards.lease_s)


def saved(stack: Stack, done: Rebuilt, deadline_s: float) -> bool:
    """Wait until a checkpoint has what was rebuilt: before that, a shard that is killed comes back as it was before.

    Returns:
        whether it has; true for a shard that the node does not save.
    """
    end = time.monotonic() + deadline_s
    while True:
        kept = stack.control.positions.of(done.shard)
        if all(kept.get(partition, at) >= at for partition, at in done.at.items()):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(_BLOCK_MS / 1000)


class _Run:
    """One rebuild, while the shard's writer pauses."""

    def __init__(
        self, stack: Stack, shard_id: str, current: ShardMap, log: EventLog, lease: int, kept: Kept, tell: Tell,
        failpoint: Failpoint,
    ) -> None:  # fmt: skip
        self._stack, self._shard_id, self._map, self._log = stack, shard_id, current, log
        self._lease, self._kept, self._tell, self._failpoint = lease, kept, tell, failpoint
        self._partitions = current.partitions_of(shard_id)
        self._folder = stack.state_dir / "rebuilds"
        self._began = time.monotonic()

    def rebuild(self, actor: str, verify: bool) -> Rebuilt:
        """See the module's function."""
        self._failpoint("paused")
        audit = self._stack.control.audit
        if away.ends_without(audit, self._shard_id) is not None:
            again = partial(away.say_again_what_it_alone_holds, self._stack, self._log, self._shard_id)
            self._kept.during(again, lambda: self._tell(Progress("noting")))
        with closing(self._stack.open_shard(self._shard_id)) as shard:
            noted = self._noted(shard) if verify else None
            ends = noted.at if noted else {p: n for p, n in self._log.ends().items() if p in self._partitions}
            self._say("shard.rebuild", actor, {"verify": verify})
            epoch = self._stack.control.shards.raise_epoch(self._shard_id)
            self._failpoint("raised")
            shard.raise_epoch(epoch)
            self._failpoint("refused")
            self._kept.during(lambda: self._empty(shard, epoch), lambda: self._tell(Progress("emptying")))
            away.came_back(audit, self._shard_id, time.time())
        records = self._heal(epoch, ends)
        self._not_saved()
        self._failpoint("healed")
        done = Rebuilt(self._shard_id, epoch, records, ends, time.monotonic() - self._began)
        if noted is not None:
            done = self._compared(done, noted)
        forget(self._folder, self._shard_id)
        self._say("shard.rebuilt", actor, {"records": records, "verified": verify})
        return done

    def _say(self, action: str, actor: str, detail: dict[str, object]) -> None:
        self._stack.control.audit.append(INSTALLATION, actor, action, self._shard_id, time.time(), detail)
        LOG.info(action.replace(".", "_"), shard=self._shard_id, **detail)

    def _noted(self, shard: GraphShard) -> NotedState:
        """The state to compare with: of now, or of the beginning of a rebuild that was killed."""
        folder, identity = self._folder, self._log.identity
        noted = NotedState.find(folder, self._shard_id, identity, self._partitions)
        if noted is None:
            noted = self._kept.during(
                lambda: note(folder, self._shard_id, identity, self._caught_up(), shard),
                lambda: self._tell(Progress("noting")),
            )
        check_tails(self._log.ends(), noted.at)
        self._failpoint("noted")
        return noted

    def _caught_up(self) -> dict[int, int]:
        """Positions up to which the shard holds everything, and nothing behind them.

        A writer that has to pause may have written a batch and not moved its cursors yet.

        Raises:
            Unavailable: it is not whole, so there is nothing to compare with.
        """
        ends = {p: n for p, n in self._log.ends().items() if p in self._partitions}
        epoch, limits = self._stack.control.shards.get(self._shard_id).epoch, self._stack.settings.log
        with closing(self._stack.open_shard(self._shard_id)) as shard:
            state = shard.state()
            if state is None or not state.serving == state.raised == epoch:
                todo = "wait until it serves (`intelgraph status`), or rebuild it without --verify"
                raise Unavailable(f"{self._shard_id} catches up with the log, so it cannot be compared: {todo}", 5.0)
            fence, owned = Fence(epoch, self._lease, self._partitions), frozenset(self._map.buckets_of(self._shard_id))
            reader, size = UpTo(self._log, ends), (limits.read_entries, limits.read_bytes)
            writer = ShardWriter(shard, reader, fence, owned.__contains__, *size, _BLOCK_MS)
            while _left(writer, ends):
                writer.step()
        return ends

    def _empty(self, shard: GraphShard, epoch: int) -> None:
        fence = Fence(epoch, self._lease, self._partitions)
        shard.own(epoch, (), self._map.buckets_of(self._shard_id), fence)
        self._failpoint("marked")
        for _ in shard.drop_all(fence):
            self._failpoint("emptying")
        self._failpoint("emptied")
        shard.begin_again(fence)
        self._not_saved()
        self._failpoint("begun again")

    def _not_saved(self) -> None:
        """The last checkpoint is of before: until the next one the log keeps all that it has, and `saved` waits."""
        positions = self._stack.control.positions
        if kept := positions.of(self._shard_id):
            positions.report_durable(self._shard_id, dict.fromkeys(kept, 0), time.time())

    def _heal(self, epoch: int, ends: Mapping[int, int]) -> int:
        began = time.monotonic()
        with closing(self._stack.open_shard(self._shard_id)) as seen:

            def look() -> None:
                self._tell(_progress(seen, ends, time.monotonic() - began))

            return self._kept.during(lambda: self._healed(epoch, ends), look)

    def _healed(self, epoch: int, ends: Mapping[int, int]) -> int:
        """Records applied. The way of a shard that came back empty."""
        limits = self._stack.settings.log
        with closing(self._stack.open_shard(self._shard_id)) as shard:
            opening = self._stack.open_lake
            start = Start(self._shard_id, epoch, self._lease, self._map, shard, self._log, opening, ends)
            writer = start_writer(start, limits.read_entries, limits.read_bytes, _BLOCK_MS)
            self._failpoint("filled")
            while _left(writer, ends):
                writer.step()
            return sum(writer.records_applied.values())

    def _compared(self, done: Rebuilt, noted: NotedState) -> Rebuilt:
        with closing(self._stack.open_shard(self._shard_id)) as shard:
            at = {p: c.at for p, c in shard.cursors().items() if p in self._partitions}
            if at != noted.at:
                raise Unavailable(f"{self._shard_id} was written by another meanwhile: say the same again", 1.0)
            lines, digest, differs = self._kept.during(
                lambda: noted.compare(shard), lambda: self._tell(Progress("comparing", done.records))
            )
        self._failpoint("compared")
        if differs is not None:
            raise StateDiffers(self._told(differs, noted))
        return Rebuilt(done.shard, done.epoch, done.records, done.at, done.seconds, lines, digest)

    def _told(self, differs: Difference, noted: NotedState) -> str:
        kept, many = noted.keep(), f"{differs.things:,} things differ" if differs.things > 1 else "1 thing differs"
        return (
            f"{self._shard_id} holds something else than before its rebuild, at the same log positions: {differs.text}."
            f" In all {many}. It serves what lake and log say; what it held is in {kept}"
        )


def _left(writer: ShardWriter, ends: Mapping[int, int]) -> int:
    at = writer.positions
    return sum(max(0, end - at.get(p, 0)) for p, end in ends.items())


def _progress(shard: GraphShard, ends: Mapping[int, int], seconds: float) -> Progress:
    cursors = {p: c for p, c in shard.cursors().items() if p in ends}
    records, entries = sum(c.records for c in cursors.values()), sum(c.at for c in cursors.values())
    left = sum(max(0, end - (cursors[p].at if p in cursors else 0)) for p, end in ends.items())
    return Progress("healing", records, records / max(seconds, 1e-9), entries, left)
