"""The loop alone, with everything around it in memory: order of its steps, back-pressure, counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from actors.admission import dry_admission
from actors.connectors.base import BadRaw, Item, Position, RawRecord
from actors.ingest import DeadRecord, IngestCounts, IngestWorker
from actors.retrying import Backoff
from actors.stages import Origin
from cluster import batch
from cluster.config import IngestLimits, Settings
from cluster.errors import Fenced, Overloaded, Rejected, Unavailable
from cluster.stores.log import Append, LogIdentity
from cluster.telemetry import metrics
from cluster.versions import decode

ORIGIN = Origin(frozenset({"acme"}), frozenset({"hr"}))
BACKOFF = Backoff(0.01, 0.02, 60.0, sleep=lambda seconds: None)


class World:
    """A source, a log and a progress in one, which writes down what happens to it."""

    identity = LogIdentity("log", 1, 4)

    def __init__(self, items: Sequence[Item]) -> None:
        self.items, self.steps = items, list[str]()
        self.entries: list[Append] = []
        self.dead: list[DeadRecord] = []
        self.committed: list[tuple[Position, int, int]] = []
        self.failures: dict[str, list[Exception]] = {}

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        left = [item for item in self.items if after is None or item.position > after]
        for at in range(0, len(left), limit_records):
            self.steps.append("poll")
            yield left[at : at + limit_records]

    def append(self, entries: Sequence[Append]) -> list[int]:
        self._step("append")
        self.entries += entries
        return [len(self.entries)] * len(entries)

    def keep(self, dead: Sequence[DeadRecord]) -> None:
        self._step("keep")
        self.dead += dead

    def commit(self, position: Position, acked: int, dead: int) -> None:
        self._step("commit")
        self.committed.append((position, acked, dead))

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    def work(
        self,
        after: Position | None = None,
        failpoint: Callable[[str], None] = lambda step: None,
        report: Callable[[IngestCounts], None] = lambda counts: None,
    ) -> IngestWorker:
        admission = dry_admission(Settings(), 4)
        worker = IngestWorker(admission, self, self, IngestLimits(batch_records=2), BACKOFF, failpoint)  # type: ignore[arg-type]
        worker.run(self, ORIGIN, 7, after, report)
        return worker


def raw(position: int, **fields: Any) -> RawRecord:
    event = {"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{position}", **fields}
    return RawRecord((position,), json.dumps(event).encode())


def test_a_batch_is_done_before_the_next_is_polled() -> None:
    world = World([raw(1), BadRaw((2,), b"x,y", "decode", "row 2"), raw(3, id="")])
    worker = world.work()
    assert world.steps == ["poll", "append", "keep", "commit"] * 2
    assert world.committed == [((2,), 1, 1), ((3,), 0, 1)]
    assert [(d.item.position, d.bad.error_class) for d in world.dead] == [((2,), "decode"), ((3,), "schema")]
    (record,) = batch.decode(world.entries[0].data)
    assert (record.source, decode(record.version)) == ("hr", (7, (1,)))
    assert (worker.counts.acked, worker.counts.dead, worker.counts.batches) == (1, 2, 2)
    assert list(worker.counts.reached) == [world.entries[0].partition]


def test_it_goes_on_behind_a_position() -> None:
    world = World([raw(at) for at in range(1, 6)])
    world.work(after=(3,))
    assert [r.id for e in world.entries for r in batch.decode(e.data)] == ["p4", "p5"]


@pytest.mark.parametrize("step", ["append", "keep", "commit"])
@pytest.mark.parametrize("error", [Unavailable("down"), Overloaded("full", 0.0)])
def test_back_pressure_stops_the_cursor_at_that_step(step: str, error: Exception) -> None:
    world = World([raw(1), raw(2), raw(3)])
    world.failures[step] = [error] * 3
    worker = world.work()
    first = world.steps.index(step)
    assert world.steps[first : first + 4] == [step] * 4
    assert world.steps.count("poll") == 2
    assert (worker.counts.retries, worker.counts.acked, world.dead) == (3, 3, [])


def test_it_says_what_it_waits_for_until_it_goes_on() -> None:
    world, told = World([raw(1), raw(2), raw(3)]), list[str]()
    world.failures["append"] = [Unavailable("the log is away"), Overloaded("the log is full")]
    world.work(report=lambda counts: told.append(counts.waiting))
    assert told == ["the log is away", "the log is full", "", ""]


def test_who_reports_can_end_the_reading_while_it_waits() -> None:
    world = World([raw(1), raw(2), raw(3)])
    world.failures["append"] = [Unavailable("the log is away")] * 1_000

    def leave(counts: IngestCounts) -> None:
        raise Rejected(f"left while {counts.waiting}")

    with pytest.raises(Rejected, match="left while the log is away"):
        world.work(report=leave)
    assert (world.steps, world.committed) == (["poll", "append"], [])


def test_who_lost_the_range_stops_at_once() -> None:
    world = World([raw(1), raw(2), raw(3)])
    world.failures["commit"] = [Fenced("another has it")]
    with pytest.raises(Fenced):
        world.work()
    assert world.steps == ["poll", "append", "keep", "commit"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), TypeError()])
def test_a_bug_is_no_dead_letter(error: Exception) -> None:
    world = World([raw(1)])
    world.failures["append"] = [error]
    with pytest.raises(type(error)):
        world.work()
    assert (world.dead, world.committed) == ([], [])


def test_its_steps_can_be_failed() -> None:
    steps: list[str] = []
    World([raw(1)]).work(failpoint=steps.append)
    assert steps == ["polled", "before append", "after append", "before commit", "committed"]


def test_every_stage_is_measured() -> None:
    name, append = "intelgraph_stage_records_total", {"stage": "append"}
    before = metrics.REGISTRY.get_sample_value(name, append) or 0.0
    worker = World([raw(1), raw(2), raw(3, id="")]).work()
    times = worker._admission.times
    names = {"decode", "validate", "normalise", "enrich", "names", "place", "route", "append"}
    assert times.seconds.keys() == times.records.keys() == names
    assert times.records["decode"] == 3
    assert times.records["append"] == 2
    assert all(seconds >= 0 for seconds in times.seconds.values())
    assert metrics.REGISTRY.get_sample_value(name, append) == before + 2
