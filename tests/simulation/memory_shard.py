"""A hot shard in memory with the semantics of `cluster.stores.graph.GraphShard`, guards included, and checkpoints.

`MemoryShard` is one connection to a `ShardProcess` over a `Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cluster.batch import Frame, records_of
from cluster.errors import Corrupt, Fenced, OutcomeUnknown, Unavailable
from cluster.fold import Outcome, Thing, thing_of
from cluster.model import Kind, Record
from cluster.stores.graph import Cursor, CursorMove, Fence, Outcomes, ShardState, StoredThing, WriteCounts
from tests.simulation.network import Network
from tests.simulation.shard_process import ShardMemory, ShardProcess, Shown

T = TypeVar("T")


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

    def encode(self, rows: Frame) -> list[list[Record]]:
        return [records_of(rows)]

    def joined(self, first: list[list[Record]], second: list[list[Record]]) -> list[list[Record]]:
        """A write takes one record a register."""
        pages = list(first)
        for page in second:
            if {_register(r) for r in pages[-1]}.isdisjoint(_register(r) for r in page):
                pages[-1] = pages[-1] + page
            else:
                pages.append(page)
        return pages

    @property
    def lanes(self) -> int:
        return 1

    def begin(self, parts: Sequence[tuple[Fence, Sequence[Sequence[Record]]]]) -> None:
        begun = []
        for fence, pages in parts:
            for page in pages:
                groups: dict[tuple[int, str], list[Record]] = {}
                for r in page:
                    key = (9, "") if r.is_overlay else (r.kind, r.type if r.kind == Kind.RELATIONSHIP else "")
                    groups.setdefault(key, []).append(r)
                begun += [(key, fence, rows) for key, rows in groups.items()]
        self._begun = [(fence, rows) for _, fence, rows in sorted(begun, key=lambda one: one[0])]

    def answered(self, within_s: float) -> bool:
        """What was begun is done in `finish`, and may not be by then."""
        return not self._begun or self._network.waits.random() < 0.5

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


def _register(record: Record) -> tuple[Thing, str]:
    return thing_of(record), record.source if record.is_overlay else ""
