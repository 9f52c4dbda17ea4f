"""The server of a shard in memory: its state, its guards, its checkpoints.

As in the database, a write query sees the rows of a batch before any of them is set: statuses are computed from what
was there before the query. `planted` switches on bugs that live in a store.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.errors import Fenced
from cluster.fold import Outcome, Thing, compare, is_conflict, thing_of
from cluster.ids import bucket_of
from cluster.model import Op, Record
from cluster.stores.graph import Cursor, CursorMove, Fence, StoredThing, WriteCounts

REFUSED = "the shard refused the write: its epoch, owned buckets or a partition's lease is another"
Shown = Record | None
OverlayKey = tuple[Thing, str]


@dataclass
class ShardMemory:
    """Everything that a checkpoint saves."""

    raised: int = 0
    serving: int = 0
    owned: frozenset[int] = frozenset()
    lacking: frozenset[int] = frozenset()
    exists: bool = False
    cursors: dict[int, Cursor] = field(default_factory=dict)
    cases: set[tuple[str, str]] = field(default_factory=set)
    facts: dict[Thing, tuple[StoredThing, Shown]] = field(default_factory=dict)
    overlays: dict[OverlayKey, Record] = field(default_factory=dict)
    floors: dict[tuple[str, str, str], tuple[str, bool]] = field(default_factory=dict)
    priorities: dict[tuple[str, str], tuple[str, int, bool]] = field(default_factory=dict)
    counts: dict[tuple[str, str, int], tuple[int, int, int]] = field(default_factory=dict)

    def copy(self) -> ShardMemory:
        """A copy that shares only what never changes."""
        mine = {name: value.copy() if hasattr(value, "copy") else value for name, value in vars(self).items()}
        return ShardMemory(**mine)


class ShardProcess:
    """The server of one shard. Each method is one query: whole, or not at all."""

    def __init__(self, name: str, planted: frozenset[str] = frozenset()) -> None:
        self.name, self.planted = name, planted
        self.memory = ShardMemory()
        self.checkpoints: list[ShardMemory] = [ShardMemory()]
        self.up = True

    def guard(self, fence: Fence, buckets: Iterable[int]) -> None:
        """As `dialect.guard`."""
        m = self.memory
        leases = [c.lease for p, c in m.cursors.items() if p in fence.partitions]
        held = sum(lease == fence.lease for lease in leases) == len(fence.partitions)
        if not (m.exists and m.raised == fence.epoch and held and m.owned.issuperset(buckets)):
            raise Fenced(REFUSED)

    def raise_epoch(self, epoch: int) -> None:
        m = self.memory
        if m.exists and m.raised >= epoch:
            raise Fenced("a later epoch is known")
        m.exists, m.raised, m.serving = True, epoch, 0

    def own(self, epoch: int, owned: frozenset[int], lacking: frozenset[int], fence: Fence | None) -> None:
        self._current(epoch)
        if fence is not None:
            self.guard(fence, ())
        forgets = "rebuild forgotten" in self.planted
        self.memory.owned, self.memory.lacking = owned, frozenset() if forgets else lacking

    def serve(self, epoch: int) -> None:
        self._current(epoch)
        self.memory.serving = epoch

    def _current(self, epoch: int) -> None:
        if self.memory.raised != epoch:
            raise Fenced("the shard's epoch is another")

    def take_lease(self, fence: Fence) -> None:
        self._current(fence.epoch)
        m, taken = self.memory, 0
        for p in fence.partitions:
            held = m.cursors.get(p, Cursor(p, 0, 0, 0, 0, 0, 0))
            if held.lease < fence.lease:
                m.cursors[p] = held._replace(lease=fence.lease)
                taken += 1
        if taken != len(fence.partitions):
            raise Fenced("a later lease is known")

    def see_cases(self, fence: Fence, cases: set[tuple[str, str]]) -> None:
        self.guard(fence, [bucket_of(*c) for c in cases])
        self.memory.cases |= cases

    def upsert(self, fence: Fence, rows: Sequence[Record]) -> list[tuple[int, bool]]:
        """(status, versions equal) of each row; statuses all before the first write."""
        self.guard(fence, [r.bucket for r in rows])
        found = [self._status(row) for row in rows]
        for row, (status, _) in zip(rows, found, strict=True):
            if status in (Outcome.NEW, Outcome.NEWER):
                self._set(row)
        return found

    def _status(self, row: Record) -> tuple[int, bool]:
        if self._is_overlay(row):
            old = self.memory.overlays.get((thing_of(row), row.source))
        else:
            stored = self.memory.facts.get(thing_of(row))
            registers = stored[0].registers if stored else {}
            if registers and set(registers) != {row.source}:
                return 4, False
            old = registers.get(row.source)
        stamp = old.stamp if old else None
        return compare(stamp, row.stamp), is_conflict(stamp, row.stamp)

    def _is_overlay(self, row: Record) -> bool:
        return row.is_overlay and "overlay is a fact" not in self.planted

    def _set(self, row: Record) -> None:
        thing = thing_of(row)
        if self._is_overlay(row):
            self.memory.overlays[(thing, row.source)] = row
            return
        if row.op == Op.DELETE and "no tombstones" in self.planted:
            self.memory.facts.pop(thing, None)
            return
        stored = StoredThing(row.kind, row.tenant, row.case, row.type, row.id, {row.source: row})
        self.memory.facts[thing] = (stored, None if row.op == Op.DELETE else row)

    def replace(self, fence: Fence, things: Sequence[tuple[StoredThing, Shown]]) -> None:
        self.guard(fence, [bucket_of(t.tenant, t.case) for t, _ in things])
        for stored, shown in things:
            thing = (stored.tenant, stored.case, int(stored.kind), stored.type, stored.id)
            if stored.registers:
                self.memory.facts[thing] = (stored, shown)
            else:
                self.memory.facts.pop(thing, None)

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
        self._current(fence.epoch)
        m = self.memory
        fits = [
            mv for mv in moves
            if (c := m.cursors.get(mv.partition)) and c.lease == fence.lease
            and (c.at == mv.start or "advance without compare" in self.planted)
        ]  # fmt: skip
        for mv in fits:
            c = m.cursors[mv.partition]
            m.cursors[mv.partition] = c._replace(
                at=mv.end, records=c.records + mv.records, applied=c.applied + mv.applied,
                duplicate=c.duplicate + mv.duplicate, stale=c.stale + mv.stale,
            )  # fmt: skip
        if fits:
            for key, o in counts.by_source.items():
                a, d, s = m.counts.get(key, (0, 0, 0))
                m.counts[key] = (a + o.applied, d + o.duplicate, s + o.stale)
        if len(fits) != len(moves):
            raise Fenced(REFUSED)

    def set_floor(self, fence: Fence, floor: Record, done: bool) -> None:
        self.guard(fence, [])
        self.memory.floors[(floor.tenant, floor.source, floor.type)] = (floor.version, done)

    def set_priority(self, fence: Fence, record: Record, priority: int, done: bool) -> None:
        self.guard(fence, [])
        self.memory.priorities[(record.tenant, record.source)] = (record.stamp, priority, done)

    def forget_overlays(self, fence: Fence, floor: Record) -> int:
        self.guard(fence, [])
        gone = [
            k for k, r in self.memory.overlays.items()
            if r.tenant == floor.tenant and r.source == floor.source and r.stamp < floor.version
            and floor.type in ("", r.type)
        ]  # fmt: skip
        for key in gone:
            del self.memory.overlays[key]
        return len(gone)

    def drop_bucket(self, epoch: int, bucket: int) -> None:
        self._current(epoch)
        m = self.memory
        m.facts = {t: v for t, v in m.facts.items() if bucket_of(t[0], t[1]) != bucket}
        m.overlays = {k: v for k, v in m.overlays.items() if bucket_of(k[0][0], k[0][1]) != bucket}
        m.cases = {c for c in m.cases if bucket_of(*c) != bucket}

    # --- disk

    def save(self) -> dict[int, int]:
        """A checkpoint; returns the cursors in it."""
        self.checkpoints.append(self.memory.copy())
        return {p: c.at for p, c in self.memory.cursors.items()}

    def come_back(self, rnd: random.Random) -> None:
        """Start again: mostly from the newest checkpoint, else from an older one, else with an empty disk."""
        kind = rnd.random()
        if kind < 0.1:
            self.memory, self.checkpoints = ShardMemory(), [ShardMemory()]
        elif kind < 0.3:
            self.memory = rnd.choice(self.checkpoints).copy()
        else:
            self.memory = self.checkpoints[-1].copy()
        self.up = True
