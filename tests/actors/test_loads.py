"""Loads of files into a real log: resumed after crashes, bad records kept, counted honestly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.connectors import mapping_from_pairs
from actors.loads import FileLoads, LoadFile, LoadProgress, packed, unpacked
from cluster.config import Settings
from cluster.errors import Fenced, Forbidden, Rejected, Unavailable
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.log import Append
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import decode

pytestmark = pytest.mark.services

Logged = Callable[[], list[Record]]
Write = Callable[..., Path]
Person = Callable[..., dict[str, Any]]


class Crash(Exception):
    pass


class CrashAt:
    """Fails at the nth time that a step is reached, once."""

    def __init__(self, step: str, nth: int) -> None:
        self.step, self.left = step, nth

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                raise Crash(step)


class Fails:
    """A log that is down or full some times before it takes an append."""

    def __init__(self, log: RedisEventLog, times: int, after: bool = False) -> None:
        self._log, self.left, self.after = log, times, after
        self.identity = log.identity

    def append(self, entries: list[Append]) -> list[int]:
        if self.left:
            self.left -= 1
            if self.after:
                self._log.append(entries)
            raise Unavailable("the log is away", 0.0)
        return self._log.append(entries)


@pytest.fixture
def loads(control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings) -> Callable[..., FileLoads]:
    def make(**named: Any) -> FileLoads:
        log = named.pop("log", event_log)
        return FileLoads(control, log, ingest_settings, **named)

    return make


@pytest.fixture
def mixed(write_lines: Write, person: Person) -> LoadFile:
    """40 good records, 3 bad ones among them."""
    events: list[Any] = [person(f"p{i}", case=f"c{i % 5}", n=i) for i in range(40)]
    events[10:10] = ["{not json", person("", n=1)]
    events.append(person("x", tenant="globex"))
    return LoadFile(write_lines("mixed.jsonl", events), "acme", "hr")


def test_a_file_is_loaded_whole(
    loads: Callable[..., FileLoads], mixed: LoadFile, logged: Logged, control: ControlStore, event_log: RedisEventLog
) -> None:
    told: list[LoadProgress] = []
    result = loads().ingest(mixed, told.append)
    assert (result.load.state, result.load.acked, result.load.dead) == ("done", 40, 3)
    assert (result.counts.acked, result.counts.dead) == (40, 3)
    assert result.reached == {p: n for p, n in event_log.ends().items() if n}
    assert {r.id for r in logged()} == {f"p{i}" for i in range(40)}
    assert {decode(r.version)[0] for r in logged()} == {result.load.epoch}
    assert told[-1].bytes_done == told[-1].bytes_total == mixed.path.stat().st_size
    assert result.times.records["decode"] == 43
    letters = control.dead_letters.list("acme")
    assert Counter(letter.error_class for letter in letters) == {"decode": 1, "schema": 1, "policy": 1}
    assert letters[0].payload == b"{not json"
    assert letters[0].headers["load"] == result.load.id
    assert control.dead_letters.list("globex") == []


def test_the_same_file_again_gives_duplicates_only(
    loads: Callable[..., FileLoads], mixed: LoadFile, logged: Logged, control: ControlStore
) -> None:
    first = loads().ingest(mixed)
    before = Fold().apply_all(logged()).state_lines()
    second = loads().ingest(mixed)
    assert second.load.id != first.load.id
    assert second.load.epoch == first.load.epoch
    assert Fold().apply_all(logged()).state_lines() == before
    assert len(logged()) == 80
    assert len(control.dead_letters.list("acme")) == 3


@pytest.mark.parametrize("step", ["polled", "before append", "after append", "before commit", "committed"])
@pytest.mark.parametrize("nth", [1, 4])
def test_a_crash_anywhere_loses_nothing(
    loads: Callable[..., FileLoads], mixed: LoadFile, logged: Logged, control: ControlStore, step: str, nth: int
) -> None:
    with pytest.raises(Crash):
        loads(failpoint=CrashAt(step, nth)).ingest(mixed)
    (running,) = control.loads.list("acme")
    assert running.state == "running"
    result = loads().ingest(mixed)
    assert (result.load.id, result.load.acked, result.load.dead) == (running.id, 40, 3)
    assert len({r.id for r in logged()}) == 40
    assert len({(r.id, r.stamp) for r in logged()}) == 40
    assert len(control.dead_letters.list("acme")) == 3


def test_committing_before_the_append_would_lose_records(
    loads: Callable[..., FileLoads], mixed: LoadFile, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug that the crash tests have to see."""
    from actors.ingest import IngestWorker

    def careless(self: Any, batch: Any) -> list[int]:
        monkeypatch.undo()
        self._progress.commit((10_000_000,), batch.good, 0)
        raise Crash

    monkeypatch.setattr(IngestWorker, "_append", careless)
    with pytest.raises(Crash):
        loads().ingest(mixed)
    loads().ingest(mixed)
    assert len({r.id for r in logged()}) < 40


@pytest.mark.parametrize("after", [False, True])
def test_a_log_that_is_down_stops_the_cursor_and_makes_no_dead_letters(
    loads: Callable[..., FileLoads], mixed: LoadFile, logged: Logged, event_log: RedisEventLog, after: bool
) -> None:
    result = loads(log=Fails(event_log, 3, after)).ingest(mixed)
    assert (result.counts.acked, result.counts.dead, result.counts.retries) == (40, 3, 3)
    assert len({(r.id, r.stamp) for r in logged()}) == 40


def test_a_preview_writes_nothing(
    loads: Callable[..., FileLoads], mixed: LoadFile, event_log: RedisEventLog, control: ControlStore
) -> None:
    seen = loads().preview(mixed)
    assert (seen.records, seen.kinds, sum(seen.dead.values())) == (40, {"entity person": 40}, 3)
    assert [e["class"] for e in seen.errors] == ["decode", "schema", "policy"]
    assert seen.first[0]["id"] == "p0"
    assert seen.first[0]["props"] == {"n": 0}
    assert set(event_log.ends().values()) == {0}
    assert control.sources.list("acme") == []
    assert control.loads.list("acme") == []
    assert control.names.list("acme", "property_name") == frozenset()


@pytest.mark.parametrize("nth", [1, 3, 6])
def test_ranges_resume_each_where_it_was(
    control: ControlStore,
    event_log: RedisEventLog,
    ingest_settings: Settings,
    mixed: LoadFile,
    logged: Logged,
    nth: int,
) -> None:
    def settings(workers: int) -> Settings:
        limits = ingest_settings.ingest.model_copy(update={"workers": workers})
        return ingest_settings.model_copy(update={"ingest": limits})

    with pytest.raises(Crash):
        FileLoads(control, event_log, settings(3), failpoint=CrashAt("before commit", nth)).ingest(mixed)
    result = FileLoads(control, event_log, settings(1)).ingest(mixed)  # the ranges are those of the beginning
    assert (result.load.acked, result.load.dead) == (40, 3)
    assert len(control.loads.positions("acme", result.load.id)) == 3
    assert len({(r.id, r.stamp) for r in logged()}) == 40


def test_a_second_worker_on_a_range_stops(
    control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, mixed: LoadFile, logged: Logged
) -> None:
    loads = FileLoads(control, event_log, ingest_settings)

    def other(step: str) -> None:
        if step == "before commit" and not control.loads.positions("acme", control.loads.list("acme")[0].id):
            loads.ingest(mixed)

    with pytest.raises((Fenced, Rejected)):
        FileLoads(control, event_log, ingest_settings, failpoint=other).ingest(mixed)
    (load,) = control.loads.list("acme")
    assert (load.state, load.acked, load.dead) == ("done", 40, 3)
    assert len({(r.id, r.stamp) for r in logged()}) == 40


def test_a_mapped_csv_resumes_within_its_rows(
    loads: Callable[..., FileLoads], write_lines: Write, logged: Logged
) -> None:
    path = write_lines("people.csv", ["mail,name", *[f"p{i}@x,Name {i}" for i in range(30)]])
    mapping = mapping_from_pairs(["type=person", "id={mail}", "props=name"])
    file = LoadFile(path, "acme", "hr", mapping=mapping, case="c1")
    with pytest.raises(Crash):
        loads(failpoint=CrashAt("committed", 2)).ingest(file)
    result = loads().ingest(file)
    assert (result.load.acked, result.load.dead, result.counts.acked) == (30, 0, 16)
    assert len(logged()) == 30


def test_a_source_has_positions_always_or_never(
    loads: Callable[..., FileLoads], write_lines: Write, person: Person, control: ControlStore
) -> None:
    events = [person("a", position=1), person("b"), person("c", position=2)]
    result = loads().ingest(LoadFile(write_lines("a.jsonl", events), "acme", "hr"))
    assert (result.load.acked, result.load.dead) == (2, 1)
    (letter,) = control.dead_letters.list("acme")
    assert letter.error_class == "schema"
    assert "always or never" in letter.reason


def test_positions_order_records_within_their_file(
    loads: Callable[..., FileLoads], write_lines: Write, person: Person, folded: Callable[[], Fold]
) -> None:
    events = [person("a", position=2, n="new"), person("a", position=1, n="old")]
    loads().ingest(LoadFile(write_lines("a.jsonl", events), "acme", "hr"))
    assert '"n":"new"' in folded().export_lines()[0]
    loads().ingest(LoadFile(write_lines("b.jsonl", [person("a", position=1, n="next file")]), "acme", "hr"))
    assert '"n":"next file"' in folded().export_lines()[0]


def test_names_are_registered_up_to_the_limit(
    control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, write_lines: Write, person: Person
) -> None:
    least = {"property_names_per_tenant": 2, "relationship_types_per_tenant": 1}
    limits = ingest_settings.records.model_copy(update=least)
    settings = ingest_settings.model_copy(update={"records": limits})
    ends = {"from": {"type": "p", "id": "a"}, "to": {"type": "p", "id": "b"}}
    related = [{**person("r"), "kind": "relationship", "type": type, **ends} for type in ("KNOWS", "OWNS")]
    events = [person("a", x=1), person("b", x=1, y=2), person("c", z=3), *related]
    result = FileLoads(control, event_log, settings).ingest(LoadFile(write_lines("a.jsonl", events), "acme", "hr"))
    assert (result.load.acked, result.load.dead) == (3, 2)
    letters = control.dead_letters.list("acme", error_class="constraint")
    assert ["'z'" in letters[0].reason, "'OWNS'" in letters[1].reason] == [True, True]
    assert control.names.list("acme", "property_name") == {"x", "y"}


def test_a_killed_source_or_a_changed_file_is_refused(
    loads: Callable[..., FileLoads], mixed: LoadFile, control: ControlStore
) -> None:
    with pytest.raises(Crash):
        loads(failpoint=CrashAt("committed", 1)).ingest(mixed)
    mixed.path.write_text(mixed.path.read_text() + "\n")
    assert loads().ingest(mixed).load.epoch == 2  # other content: another load
    control.sources.kill("acme", "hr")
    with pytest.raises(Forbidden):
        loads().ingest(mixed)
    with pytest.raises(Forbidden):
        loads().ingest(LoadFile(mixed.path, "acme", "overlay/x"))
    with pytest.raises(Rejected):
        loads().ingest(LoadFile(mixed.path.with_name("missing.jsonl"), "acme", "feed"))


def test_positions_are_packed_in_order() -> None:
    positions = [(0,), (0, 2), (1, 1), (1, 2), (7,), (1 << 42,)]
    numbers = [packed(position) for position in positions]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0
    assert unpacked(0) is None
    for position, number in zip(positions, numbers, strict=True):
        after = unpacked(number)
        assert after is not None
        assert not position > after
        assert (position[0] + 1,) > after
    for wrong in ((1, 2, 3), (1, 1 << 20), (1, 0)):
        with pytest.raises(Rejected):
            packed(wrong)


def test_a_source_that_is_killed_stops_its_running_load(
    loads: Callable[..., FileLoads], control: ControlStore, mixed: LoadFile
) -> None:
    def kill(step: str) -> None:
        if step == "committed":
            control.sources.kill("acme", "hr")

    with pytest.raises(Forbidden):
        loads(failpoint=kill).ingest(mixed)
