"""What a hot shard does, whatever database it is: the interface that writers, readers and movers use."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import polars as pl

from cluster import versions
from cluster.batch import Frame
from cluster.errors import Corrupt
from cluster.fold import Outcome, Priorities, merge
from cluster.model import Op, Record


class QueryFailed(Corrupt):
    """The shard refused a query text as wrong: a defect of ours or damage there, never a bad record's fault."""


@dataclass(frozen=True)
class Fence:
    """What a writer believes: nothing is written where the shard knows otherwise.

    Args:
        epoch: the shard's, raised at every start and change of ownership.
        lease: of all the partitions, raised when another writer takes over.
        partitions: log partitions whose buckets are written.
    """

    epoch: int
    lease: int
    partitions: tuple[int, ...]


class Cursor(NamedTuple):
    """How far a shard has applied one log partition, with what it counted on the way."""

    partition: int
    at: int
    lease: int
    records: int
    applied: int
    duplicate: int
    stale: int


class CursorMove(NamedTuple):
    """One cursor's step: from where to where, records of this shard between, and their outcomes."""

    partition: int
    start: int
    end: int
    records: int
    applied: int = 0
    duplicate: int = 0
    stale: int = 0


@dataclass
class Outcomes:
    """How many records had which outcome."""

    applied: int = 0
    duplicate: int = 0
    stale: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.applied + self.duplicate + self.stale

    def count(self, outcome: Outcome, number: int = 1) -> None:
        """Some more."""
        if outcome is Outcome.DUPLICATE:
            self.duplicate += number
        elif outcome is Outcome.STALE:
            self.stale += number
        else:
            self.applied += number


_DIGITS = pl.col("stamp").str.head(1).replace_strict({chr(96 + n): n for n in range(1, 17)}, return_dtype=pl.Int64)
_EPOCH = (pl.col("tenant"), pl.col("source"), pl.col("stamp").str.head(1 + _DIGITS).alias("epoch"))
"""What outcomes are counted by; a stamp begins with a letter for the number of the epoch's digits (versions.py)."""


def _first(rows: Frame) -> tuple[str, str, str]:
    """`_EPOCH` of the first row: it alone is not worth a query."""
    return rows["tenant"][0], rows["source"][0], versions.epoch_text(rows["stamp"][0])


def is_mixed(rows: Frame) -> bool:
    """Whether records are of more than one (tenant, source, epoch)."""
    if not rows.height:
        return False
    tenant, source, epoch = _first(rows)
    same = (pl.col("tenant") == tenant) & (pl.col("source") == source) & pl.col("stamp").str.starts_with(epoch)
    return not rows.select(same.all()).item()


@dataclass
class WriteCounts:
    """What became of the records of a write, by the (tenant, source, epoch) that they are of."""

    by_source: defaultdict[tuple[str, str, int], Outcomes] = field(default_factory=lambda: defaultdict(Outcomes))
    conflicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(tenant, source) → versions that came with two contents."""
    others: list[Record] = field(default_factory=list)
    """Records of things that another source speaks of already: not written, to be folded by the writer."""

    def count(self, record: Record, outcome: Outcome) -> None:
        """One record's outcome."""
        self.by_source[(record.tenant, record.source, versions.epoch_of(record.stamp))].count(outcome)

    def count_alike(self, rows: Frame, statuses: Sequence[int]) -> None:
        """The outcomes of records of one (tenant, source, epoch), in any order; other statuses are no outcome yet."""
        tenant, source, epoch = _first(rows)
        key = (tenant, source, versions.epoch_of(epoch))
        for status, number in Counter(statuses).items():
            if status <= Outcome.STALE:
                self.by_source[key].count(Outcome(status), number)

    def count_each(self, rows: Frame, statuses: Sequence[int]) -> None:
        """The outcomes of any records, in their order; other statuses are no outcome yet."""
        found = rows.select(_EPOCH).with_columns(pl.Series("status", statuses, pl.UInt8))
        for tenant, source, epoch, status, number in found.group_by(pl.all()).len().rows():
            if status <= Outcome.STALE:
                self.by_source[(tenant, source, versions.epoch_of(epoch))].count(Outcome(status), number)

    @property
    def all(self) -> Outcomes:
        """Sums over all sources."""
        rows = self.by_source.values()
        return Outcomes(sum(o.applied for o in rows), sum(o.duplicate for o in rows), sum(o.stale for o in rows))


class StoredThing(NamedTuple):
    """All registers of one thing that a shard holds, by source."""

    kind: int
    tenant: str
    case: str
    type: str
    id: str
    registers: dict[str, Record]


def merged_record(thing: StoredThing, priorities: Priorities) -> Record | None:
    """The merged view of a thing's registers as a record; None where none of a fact source lives."""
    shown = merge(thing.registers.values(), priorities)
    if shown is None:
        return None
    any_register = next(iter(thing.registers.values()))
    return any_register._replace(op=Op.UPSERT, **shown._asdict())


class ShardState(NamedTuple):
    """The shard's own node: epoch of writers, epoch of readers (0: not ready), owned buckets, and those of which it
    may hold a part only: taken over or given up, and not yet whole or gone."""

    raised: int
    serving: int
    owned: frozenset[int]
    lacking: frozenset[int] = frozenset()


class GraphShard(Protocol):
    """One shard, seen by one thread. Every write names its fence and is refused by the shard where that is old."""

    def prepare(self) -> None:
        """Create indexes. Safe to call twice."""

    def state(self) -> ShardState | None:
        """The shard's own node; None for a shard that is empty."""

    def raise_epoch(self, epoch: int) -> None:
        """Refuse older epochs from now on; readers wait until `serve`."""

    def own(self, epoch: int, buckets: Iterable[int], lacking: Iterable[int] = (), fence: Fence | None = None) -> None:
        """Say which buckets are served, and of which it may hold a part only.

        Args:
            fence: of the writer that says so; a request of an earlier writer that arrives late is refused.
        """

    def serve(self, epoch: int) -> None:
        """Let readers in."""

    def take_lease(self, fence: Fence) -> None:
        """Take the partitions' cursors over. Raises Fenced where a later lease or epoch is known."""

    def cursors(self) -> dict[int, Cursor]:
        """Cursor of each partition that was ever leased here."""

    def see_cases(self, fence: Fence, cases: Iterable[tuple[str, str]]) -> None:
        """Keep the names (tenant, case) of what is new here; before the first write of a case. Safe to call twice."""

    def encode(self, rows: Frame) -> Any:
        """A folded batch, at most one record a register and thing, as `begin` takes it. Touches nothing."""

    def joined(self, first: Any, second: Any) -> Any:
        """Two batches of `encode` as one; of a thing in both, the first's record is written before the second's."""

    @property
    def lanes(self) -> int:
        """How many batches of partitions apart it works on beside each other."""

    def begin(self, parts: Sequence[tuple[Fence, Any]]) -> None:
        """Send a batch. Does not wait for it to be written.

        Args:
            parts: at most `lanes`; they may be written at the same time, so the fence of each names other partitions.
        """

    def answered(self, within_s: float) -> bool:
        """Whether `finish` has all first answers to the batch; waits for them so long at most.

        Raises:
            OutcomeUnknown, Unavailable, QueryFailed, Overloaded: as `finish` does; what was begun is forgotten.
        """

    def finish(self) -> WriteCounts:
        """Wait for the batch that was begun. Raises Fenced when a part was refused."""

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
        """Move cursors by compare-and-set and add to the counts of each source's epoch. Raises Fenced."""

    def fetch(self, records: Iterable[Record]) -> dict[tuple[str, str, int, str, str], StoredThing]:
        """Registers of the things that these records are about."""

    def replace(self, fence: Fence, things: Sequence[tuple[StoredThing, Record | None]]) -> None:
        """Write folded things whole: (registers, merged view); a thing without registers is forgotten."""

    def things(self, tenant: str, case: str) -> Iterable[StoredThing]:
        """Every register of a case, thing by thing."""

    def cases(self) -> list[tuple[str, str]]:
        """(tenant, case) of every case that was ever written here."""

    def shown(self, tenant: str, case: str) -> Iterable[Record]:
        """Everything that is visible in a case, as the graph itself shows it."""

    def outcomes(self) -> dict[tuple[str, str, int], Outcomes]:
        """What became of every record that was ever applied here, by (tenant, source, epoch)."""

    def floors(self) -> list[tuple[str, str, str, str, bool]]:
        """(tenant, source, type, version, done) of every floor; one not done has to be applied again."""

    def priorities(self) -> list[tuple[str, str, str, int, bool]]:
        """(tenant, source, stamp, priority, done) of every priority."""

    def set_floor(self, fence: Fence, floor: Record, done: bool) -> None:
        """Keep a floor; `done` once every register below it is hidden. Safe to call twice."""

    def set_priority(self, fence: Fence, record: Record, priority: int, done: bool) -> None:
        """Keep a priority; `done` once every thing of several sources is merged anew. Safe to call twice."""

    def touched(self, tenant: str, case: str, source: str, version: str) -> Iterable[StoredThing]:
        """Things of a case that a floor may hide or a priority may order anew."""

    def forget_overlays(self, fence: Fence, floor: Record) -> int:
        """Delete an overlay's registers below its floor; returns how many."""

    def drop_bucket(self, epoch: int, bucket: int) -> None:
        """Delete everything of a bucket that this shard no longer owns. Safe to call twice."""

    def drop_all(self, fence: Fence) -> Iterable[int]:
        """Delete everything but the shard's own node, cursors and counts, page by page; yields how many each time.

        Safe to call twice. A fence that is not current deletes nothing and raises nothing: `begin_again` does.
        """

    def begin_again(self, fence: Fence) -> None:
        """Set the cursors of an emptied shard to 0, free their leases and forget the counts, at once. Raises Fenced."""

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        """Run a fixed reading template."""

    def close(self) -> None:
        """Close connections."""
