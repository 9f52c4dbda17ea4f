"""A hot shard in memory with the semantics of `cluster.stores.graph.GraphShard`, guards included, and checkpoints.

`ShardProcess` is the server: its state, its guards, its checkpoints. `MemoryShard` is one connection to it over a
network that loses requests, loses answers, delays and repeats.

As in the database, a write query sees the rows of a batch before any of them is set: statuses are computed from what
was there before the query. `planted` switches on bugs that live in a store.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cluster.batch import Frame, records_of
from cluster.errors import Corrupt, Fenced, OutcomeUnknown, Retryable, Unavailable
from cluster.fold import Outcome, Thing, compare, is_conflict, thing_of
from cluster.ids import bucket_of
from cluster.model import Kind, Op, Record
from cluster.stores.graph import Cursor, CursorMove, Fence, Outcomes, ShardState, StoredThing, WriteCounts

T = TypeVar("T")
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
        """As `dialect._GUARD`."""
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


class Network:
    """What may go wrong between a client and a server. Delayed requests arrive when the scheduler says so."""

    def __init__(self, rnd: random.Random, trouble: float) -> None:
        self.rnd, self.trouble = rnd, trouble
        self.delayed: list[Callable[[], Any]] = []

    def call(self, up: Callable[[], bool], effect: Callable[[], T], wrote: bool) -> T:
        """One request and its answer.

        Raises:
            Unavailable: it never arrived (a read: or its answer was lost). OutcomeUnknown: nobody knows.
        """
        if not up():
            raise Unavailable("down")
        luck = self.rnd.random()
        if luck >= self.trouble:
            return effect()
        if not wrote:
            raise Unavailable("the network lost it")
        fate = self.rnd.randrange(4)
        if fate == 1:
            effect()
        elif fate == 2:
            self.delayed.append(effect)
        elif fate == 3:
            effect()
            self.delayed.append(effect)
        raise OutcomeUnknown("the answer was lost")

    def deliver_one(self) -> None:
        """One delayed request arrives, in any order; its answer goes nowhere."""
        if self.delayed:
            late = self.delayed.pop(self.rnd.randrange(len(self.delayed)))
            try:
                late()
            except Retryable:
                return


class MemoryShard:
    """One connection. See `graph.GraphShard`, and the further methods that floors and healing use."""

    def __init__(self, process: ShardProcess, network: Network) -> None:
        self._process, self._network = process, network
        self._known_cases: set[tuple[str, str]] = set()
        self._begun: list[tuple[Fence, list[Record]]] = []

    @property
    def _memory(self) -> ShardMemory:
        return self._process.memory

    def _write(self, effect: Callable[[], T]) -> T:
        process = self._process
        memory = process.memory
        self._check_idle()

        def if_still_there() -> T:
            if process.memory is not memory:
                raise Fenced("this request went to a process that is gone")
            return effect()

        return self._network.call(lambda: process.up, if_still_there, True)

    def _read(self, effect: Callable[[], T]) -> T:
        self._check_idle()
        return self._network.call(lambda: self._process.up, effect, False)

    def _check_idle(self) -> None:
        if self._begun:
            raise RuntimeError("a batch is under way on this connection")

    def prepare(self) -> None:
        self._known_cases.clear()
        self._read(lambda: None)

    def state(self) -> ShardState | None:
        m = self._read(lambda: self._memory)
        return ShardState(m.raised, m.serving, m.owned, m.lacking) if m.exists else None

    def raise_epoch(self, epoch: int) -> None:
        self._write(lambda: self._process.raise_epoch(epoch))

    def own(self, epoch: int, buckets: Iterable[int], lacking: Iterable[int] = (), fence: Fence | None = None) -> None:
        both = frozenset(buckets), frozenset(lacking)
        self._write(lambda: self._process.own(epoch, *both, fence))

    def serve(self, epoch: int) -> None:
        self._write(lambda: self._process.serve(epoch))

    def take_lease(self, fence: Fence) -> None:
        self._write(lambda: self._process.take_lease(fence))

    def cursors(self) -> dict[int, Cursor]:
        return self._read(lambda: dict(self._memory.cursors))

    def cases(self) -> list[tuple[str, str]]:
        return self._read(lambda: sorted(self._memory.cases))

    def see_cases(self, fence: Fence, cases: Iterable[tuple[str, str]]) -> None:
        unseen = set(cases) - self._known_cases
        if unseen:
            self._write(lambda: self._process.see_cases(fence, unseen))
            self._known_cases |= unseen

    def encode(self, rows: Frame) -> list[Record]:
        return records_of(rows)

    def begin(self, fence: Fence, encoded: Sequence[Record]) -> None:
        groups: dict[tuple[int, str], list[Record]] = {}
        for r in encoded:
            key = (9, "") if r.is_overlay else (r.kind, r.type if r.kind == Kind.RELATIONSHIP else "")
            groups.setdefault(key, []).append(r)
        self._begun = [(fence, groups[key]) for key in sorted(groups)]

    def finish(self) -> WriteCounts:
        counts = WriteCounts()
        begun, self._begun = self._begun, []
        for at, (fence, rows) in enumerate(begun):
            try:
                found = self._write(lambda fence=fence, rows=rows: self._process.upsert(fence, rows))  # type: ignore[misc]
            except (OutcomeUnknown, Unavailable):
                self._leave(begun[at + 1 :])
                raise
            self._count(counts, rows, found)
        return counts

    def _leave(self, begun: Sequence[tuple[Fence, list[Record]]]) -> None:
        """What was sent before the connection broke may still arrive."""
        process, memory = self._process, self._process.memory
        for fence, rows in begun:
            if self._network.rnd.random() < 0.5:

                def late(fence: Fence = fence, rows: list[Record] = rows) -> None:
                    if process.memory is memory:
                        process.upsert(fence, rows)

                self._network.delayed.append(late)

    def _count(self, counts: WriteCounts, rows: Sequence[Record], found: Sequence[tuple[int, bool]]) -> None:
        if len(found) != len(rows):
            raise Corrupt("not every row was counted")
        for record, (status, conflict) in zip(rows, found, strict=True):
            if conflict:
                counts.conflicts[(record.tenant, record.source)] += 1
            if status == 4:
                counts.others.append(record)
            else:
                counts.count(record, Outcome(status))

    def advance(self, fence: Fence, moves: Sequence[CursorMove], counts: WriteCounts) -> None:
        self._write(lambda: self._process.advance(fence, moves, counts))

    def outcomes(self) -> dict[tuple[str, str, int], Outcomes]:
        return {key: Outcomes(*row) for key, row in self._memory.counts.items()}

    def fetch(self, records: Iterable[Record]) -> dict[Thing, StoredThing]:
        wanted = {thing_of(r) for r in records}
        return self._read(lambda: {t: self._memory.facts[t][0] for t in wanted if t in self._memory.facts})

    def replace(self, fence: Fence, things: Sequence[tuple[StoredThing, Shown]]) -> None:
        if things:
            self._write(lambda: self._process.replace(fence, things))

    def floors(self) -> list[tuple[str, str, str, str, bool]]:
        return self._read(lambda: [(*key, *value) for key, value in sorted(self._memory.floors.items())])

    def priorities(self) -> list[tuple[str, str, str, int, bool]]:
        return self._read(lambda: [(*key, *value) for key, value in sorted(self._memory.priorities.items())])

    def set_floor(self, fence: Fence, floor: Record, done: bool) -> None:
        self._write(lambda: self._process.set_floor(fence, floor, done))

    def set_priority(self, fence: Fence, record: Record, priority: int, done: bool) -> None:
        self._write(lambda: self._process.set_priority(fence, record, priority, done))

    def forget_overlays(self, fence: Fence, floor: Record) -> int:
        return self._write(lambda: self._process.forget_overlays(fence, floor))

    def touched(self, tenant: str, case: str, source: str, version: str) -> Iterator[StoredThing]:
        for thing in self._read(lambda: self._facts_of(tenant, case)):
            registers = thing.registers
            if len(registers) > 1 or (source in registers and registers[source].stamp < version):
                yield thing

    def _facts_of(self, tenant: str, case: str) -> list[StoredThing]:
        return [s for (t, c, *_), (s, _) in sorted(self._memory.facts.items()) if (t, c) == (tenant, case)]

    def things(self, tenant: str, case: str) -> Iterator[StoredThing]:
        yield from self._facts_of(tenant, case)
        for (thing, source), r in self._memory.overlays.items():
            if thing[:2] == (tenant, case):
                yield StoredThing(r.kind, tenant, case, r.type, r.id, {source: r})

    def shown(self, tenant: str, case: str) -> Iterator[Record]:
        """What the shard shows of a case."""
        shown = {t: s for t, (_, s) in self._memory.facts.items() if t[:2] == (tenant, case)}
        for thing, record in shown.items():
            if record is None:
                continue
            if thing[2] == Kind.RELATIONSHIP:
                ends = ((record.a_type, record.a_id), (record.b_type, record.b_id))
                if any(shown.get((tenant, case, int(Kind.ENTITY), *end)) is None for end in ends):
                    continue
            yield record

    def drop_bucket(self, epoch: int, bucket: int) -> None:
        self._write(lambda: self._process.drop_bucket(epoch, bucket))
        self._known_cases.clear()

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        raise NotImplementedError("no templates here")

    def close(self) -> None:
        self._begun = []
        self._known_cases.clear()
