"""Undo of loads, against the fold of what should be left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.loads import FileLoads, LoadFile
from actors.undo import Undo
from cluster.config import Settings
from cluster.errors import Conflict, NotFound, Rejected
from cluster.fold import Fold
from cluster.model import Kind, Record
from cluster.stores.control import ControlStore
from cluster.stores.control_loads import Load
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import decode

pytestmark = pytest.mark.services

Person = Callable[..., dict[str, Any]]


class Crash(Exception):
    pass


class WholeLog:
    """What the lake would have."""

    def __init__(self, logged: Callable[[], list[Record]]) -> None:
        self._logged = logged

    def events(self, tenant: str, source: str) -> Iterator[Record]:
        return (r for r in self._logged() if (r.tenant, r.source) == (tenant, source))


class Bench:
    def __init__(
        self, control: ControlStore, log: RedisEventLog, settings: Settings, folder: Path, logged: Any
    ) -> None:
        self.control, self.log, self.settings, self.folder, self.logged = control, log, settings, folder, logged
        self._files = 0

    def load(self, events: list[dict[str, Any]], source: str = "hr", name: str | None = None) -> Load:
        self._files += 1
        path = self.folder / (name or f"{self._files}.jsonl")
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return FileLoads(self.control, self.log, self.settings).ingest(LoadFile(path, "acme", source)).load

    def undo(self, load: Load, failpoint: Callable[[str], None] = lambda step: None) -> int:
        undo = Undo(self.control, self.log, WholeLog(self.logged), self.settings, failpoint=failpoint)
        return undo.undo("acme", load.id, "ann").said_again

    def shown(self) -> list[str]:
        return Fold().apply_all(self.logged()).export_lines()


@pytest.fixture
def bench(
    control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, tmp_path: Path,
    logged: Callable[[], list[Record]],
) -> Bench:  # fmt: skip
    return Bench(control, event_log, ingest_settings, tmp_path, logged)


def people(person: Person, ids: str, value: str) -> list[dict[str, Any]]:
    return [person(id, case=f"case {id}", v=value) for id in ids]


@pytest.mark.parametrize("order", ["0", "1", "2", "01", "10", "12", "21", "02", "201", "012", "102"])
def test_what_is_left_is_what_the_other_loads_say(bench: Bench, person: Person, order: str) -> None:
    contents = [
        [*people(person, "abcdef", "one"), person("z", case="case z", op="delete")],
        [*people(person, "cdeghz", "two"), {**person("c", case="case c"), "op": "delete"}],
        people(person, "efgij", "three"),
    ]
    loads = [bench.load(content) for content in contents]
    bench.load(people(person, "ax", "other source"), "crm")
    undone = [loads[int(at)] for at in order]
    for load in undone:
        bench.undo(load)
    shown = bench.shown()
    # the same facts without those loads, in a log of their own
    expected = Fold()
    for record in bench.logged():
        if record.kind < Kind.FLOOR:
            epoch, position = decode(record.version)
            taken = {load.epoch for load in undone} if record.source == "hr" else set()
            if position[0] < 2**64 - 1 and epoch not in taken:
                expected.apply(record)
    assert shown == expected.export_lines()
    assert len(shown) > 0
    assert all(bench.control.loads.get("acme", load.id).state == "undone" for load in undone)


def test_what_comes_later_stays_newer_whenever_it_arrives(bench: Bench, person: Person) -> None:
    first = bench.load(people(person, "ab", "one"))
    second = bench.load(people(person, "ab", "two"))
    third = people(person, "a", "three")

    def meanwhile(step: str) -> None:
        if step == "before append":
            bench.load(third, name="third.jsonl")

    bench.undo(second, meanwhile)
    assert [line.count('"three"') + 2 * line.count('"one"') for line in bench.shown()] == [1, 2]
    assert first.state == "done"


@pytest.mark.parametrize("step", ["before append", "before floor", "before mark"])
def test_a_crashed_undo_is_repeated(bench: Bench, person: Person, step: str) -> None:
    bench.load(people(person, "abc", "one"))
    second = bench.load(people(person, "bcd", "two"))

    def crash(at: str) -> None:
        if at == step:
            raise Crash

    with pytest.raises(Crash):
        bench.undo(second, crash)
    assert bench.control.loads.get("acme", second.id).state == "done"
    bench.undo(second)
    assert [line.count('"one"') for line in bench.shown()] == [1, 1, 1]
    before = Fold().apply_all(bench.logged()).state_lines()
    assert bench.undo(second) == 0
    assert Fold().apply_all(bench.logged()).state_lines() == before
    assert [entry.action for entry in bench.control.audit.list("acme", action="load.undo")] == ["load.undo"]


def test_a_load_that_was_undone_can_be_loaded_again(bench: Bench, person: Person) -> None:
    content = people(person, "ab", "one")
    first = bench.load(content, name="same.jsonl")
    twin = bench.load(content, name="same.jsonl")
    bench.undo(first)
    assert bench.shown() == []
    assert bench.control.loads.get("acme", twin.id).state == "undone"
    again = bench.load(content, name="same.jsonl")
    assert again.epoch > first.epoch
    assert len(bench.shown()) == 2
    bench.undo(again)
    assert bench.shown() == []
    assert bench.load(content, name="same.jsonl").epoch > again.epoch
    assert len(bench.shown()) == 2


def test_what_cannot_be_taken_back_says_so(bench: Bench, person: Person) -> None:
    own = bench.load([person("a", position=1, epoch=50)], "feed")
    with pytest.raises(Rejected, match="epochs of their own"):
        bench.undo(own)
    nothing = bench.load([person("", n=1)], "empty")
    assert bench.undo(nothing) == 0
    with pytest.raises(NotFound):
        Undo(bench.control, bench.log, WholeLog(bench.logged), bench.settings).undo("globex", own.id, "ann")
    bench.control.leases.acquire("undo/acme/feed", "another", 60.0, 1e12)
    with pytest.raises(Conflict):
        bench.undo(own)


class Lossy:
    """A lake, and the log behind it, that have lost the first floor of some partitions."""

    def __init__(self, logged: Callable[[], list[Record]], lost: set[int]) -> None:
        self._logged, self._lost = logged, lost

    def records(self) -> list[Record]:
        kept, lost = list[Record](), set(self._lost)
        for record in self._logged():
            if record.kind == Kind.FLOOR and record.bucket in lost:
                lost.remove(record.bucket)
            else:
                kept.append(record)
        return kept

    def events(self, tenant: str, source: str) -> Iterator[Record]:
        return (r for r in self.records() if (r.tenant, r.source) == (tenant, source))


@pytest.mark.parametrize("every", [True, False])
def test_an_undo_whose_floor_was_lost_is_said_again(bench: Bench, person: Person, every: bool) -> None:
    partitions = range(bench.log.identity.partitions)
    lost = set(partitions if every else partitions[-1:])
    bench.load(people(person, "abcdefgh", "one"))
    load = bench.load(people(person, "cdefghij", "two"))
    bench.undo(load)
    wanted = bench.shown()
    lake = Lossy(bench.logged, lost)
    assert (Fold().apply_all(lake.records()).export_lines() != wanted) is every
    undo = Undo(bench.control, bench.log, lake, bench.settings)
    done = undo.undo("acme", load.id, "ann")
    assert done.load.state == "undone"
    assert set(done.reached) >= lost
    assert Fold().apply_all(lake.records()).export_lines() == wanted
    assert undo.undo("acme", load.id, "ann").reached == {}
    assert len([one for one in bench.control.audit.every("acme") if one.action == "load.undo"]) == 2


def test_an_undo_that_a_later_one_covers_is_not_said_again(bench: Bench, person: Person) -> None:
    first, second = (bench.load(people(person, "abc", value)) for value in ("one", "two"))
    for load in (first, second):
        bench.undo(load)
    before = len(bench.logged())
    for load in (first, second):
        assert bench.undo(load) == 0
    assert len(bench.logged()) == before
