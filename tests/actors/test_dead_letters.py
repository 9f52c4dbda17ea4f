"""Replay of dead letters: first position kept, no effect twice, none lost, an end to what never heals."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from actors.dead_letters import LetterFilter, Replay
from actors.loads import FileLoads, LoadFile
from cluster.config import RecordLimits, Settings
from cluster.errors import NotFound, Rejected, Unavailable
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import encode

pytestmark = pytest.mark.services

Person = Callable[..., dict[str, Any]]
Logged = Callable[[], list[Record]]


class Crash(Exception):
    pass


@pytest.fixture
def loaded(
    control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, tmp_path: Path, person: Person
) -> Callable[[int], None]:
    """Loads a file under a limit of one property name: `old` is refused, then a newer record of each comes."""

    def load(count: int) -> None:
        limits = RecordLimits(property_names_per_tenant=1)
        settings = ingest_settings.model_copy(update={"records": limits})
        events = [person(f"p{i}", new=0) for i in range(1)]
        events += [person(f"p{i}", old=i) for i in range(count)]
        events += [person(f"p{i}", new=i) for i in range(0, count, 2)]
        path = tmp_path / "people.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        result = FileLoads(control, event_log, settings).ingest(LoadFile(path, "acme", "hr"))
        assert result.load.dead == count

    return load


@pytest.fixture
def replay(control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings) -> Callable[..., Replay]:
    def make(**named: Any) -> Replay:
        return Replay(control, event_log, named.pop("settings", ingest_settings), **{"sleep": lambda s: None, **named})

    return make


def crash_at(step: str, nth: int = 1) -> Callable[[str], None]:
    left = [nth]

    def at(reached: str) -> None:
        if reached == step:
            left[0] -= 1
            if left[0] == 0:
                raise Crash

    return at


def test_a_replayed_record_keeps_its_place_and_overtakes_nothing(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, control: ControlStore
) -> None:
    loaded(6)
    result = replay().replay("acme", "ann")
    assert (result.count("replayed"), result.skipped) == (6, 0)
    fold = Fold().apply_all(logged())
    shown = {json.loads(line)["id"]: json.loads(line)["props"] for line in fold.export_lines()}
    assert shown == {f"p{i}": {"new": i} if i % 2 == 0 else {"old": i} for i in range(6)}
    by_file = Fold().apply_all(sorted(logged(), key=lambda r: r.stamp))
    assert by_file.state_lines() == fold.state_lines()
    assert {letter.state for letter in control.dead_letters.list("acme")} == {"replayed"}
    (entry,) = control.audit.list("acme", action="dead_letters.replay")
    assert entry.actor == "ann"


def test_again_it_finds_nothing_to_do(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, control: ControlStore
) -> None:
    loaded(3)
    ids = [letter.id for letter in control.dead_letters.list("acme")]
    replay().replay("acme", "ann", ids=ids)
    count = len(logged())
    again = replay().replay("acme", "ann", ids=[*ids, *ids])
    assert (again.letters, again.skipped) == ([], 3)
    assert replay().replay("acme", "ann").letters == []
    assert len(logged()) == count


@pytest.mark.parametrize("step", ["begun", "before append", "after append", "finished"])
def test_a_crash_in_the_middle_loses_nothing_and_acts_once(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, control: ControlStore, step: str
) -> None:
    loaded(5)
    with pytest.raises(Crash):
        replay(failpoint=crash_at(step)).replay("acme", "ann")
    replay().replay("acme", "ann")
    fold = Fold().apply_all(logged())
    shown = {json.loads(line)["id"]: json.loads(line)["props"] for line in fold.export_lines()}
    assert shown == {f"p{i}": {"new": i} if i % 2 == 0 else {"old": i} for i in range(5)}
    assert {letter.state for letter in control.dead_letters.list("acme")} == {"replayed"}
    assert len({(r.id, r.stamp) for r in logged()}) == 1 + 5 + 3


def test_a_version_from_a_clock_would_overtake(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug that the order test has to see."""
    from actors.stages import records

    loaded(2)
    monkeypatch.setattr(records.versions, "encode", lambda epoch, position: encode(epoch, [1 << 40]))
    replay().replay("acme", "ann")
    shown = {json.loads(line)["id"]: json.loads(line)["props"] for line in Fold().apply_all(logged()).export_lines()}
    assert shown["p0"] == {"old": 0}


def test_a_dry_run_changes_nothing(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, control: ControlStore
) -> None:
    loaded(2)
    control.dead_letters.add("acme", [NewDeadLetter("hr", 1, [9_999], "decode", "x", b"{bad")], 1.0)
    before, count = control.dead_letters.list("acme"), len(logged())
    result = replay().replay("acme", "ann", dry_run=True)
    assert [letter.state for letter in result.letters] == ["replayed", "replayed", "waiting"]
    assert result.letters[2].reason
    assert control.dead_letters.list("acme") == before
    assert len(logged()) == count
    assert control.audit.list("acme") == []


def test_what_is_still_bad_is_quarantined_at_the_limit(
    replay: Callable[..., Replay], logged: Logged, control: ControlStore, ingest_settings: Settings
) -> None:
    control.sources.register("acme", "hr", 1.0)
    control.dead_letters.add("acme", [NewDeadLetter("hr", 1, [5], "decode", "x", b"{bad")], 1.0)
    limit = ingest_settings.ingest.dead_letter_attempts
    states = [replay().replay("acme", "ann").letters[0].state for _ in range(limit)]
    assert states == ["waiting"] * (limit - 1) + ["quarantined"]
    assert replay().replay("acme", "ann").letters == []
    (letter,) = control.dead_letters.list("acme")
    assert (letter.attempts, letter.state, letter.error_class) == (limit, "quarantined", "decode")
    assert logged() == []


def test_a_record_that_kills_its_worker_is_quarantined_too(
    replay: Callable[..., Replay], control: ControlStore, ingest_settings: Settings, person: Person
) -> None:
    control.sources.register("acme", "hr", 1.0)
    payload = json.dumps(person("a")).encode()
    control.dead_letters.add("acme", [NewDeadLetter("hr", 1, [5], "schema", "x", payload)], 1.0)
    for _ in range(ingest_settings.ingest.dead_letter_attempts):
        with pytest.raises(Crash):
            replay(failpoint=crash_at("begun")).replay("acme", "ann")
    (told,) = replay().replay("acme", "ann").letters
    assert (told.state, told.reason) == ("quarantined", "x")
    assert control.dead_letters.list("acme")[0].state == "quarantined"


def test_filters_limits_and_rate(
    loaded: Callable[[int], None], replay: Callable[..., Replay], control: ControlStore
) -> None:
    loaded(5)
    slept: list[float] = []
    assert replay().replay("acme", "ann", matching=LetterFilter(source="other")).letters == []
    assert replay().replay("acme", "ann", matching=LetterFilter(error_class="decode")).letters == []
    some = replay(sleep=slept.append).replay("acme", "ann", rate_per_s=2.0, limit=3)
    assert len(some.letters) == 3
    assert 1.0 < sum(slept) <= 1.5
    assert replay().replay("acme", "ann", matching=LetterFilter(attempts=7)).letters == []
    rest = replay().replay("acme", "ann", matching=LetterFilter("constraint", "hr", "person"))
    assert len(rest.letters) == 2
    for wrong in ({"rate_per_s": 0.0}, {"limit": 0}):
        with pytest.raises(Rejected):
            replay().replay("acme", "ann", **wrong)
    with pytest.raises(NotFound):
        replay().replay("globex", "ann", ids=[some.letters[0].id])


def test_a_replay_looks_at_each_letter_once(
    replay: Callable[..., Replay], control: ControlStore, person: Person
) -> None:
    control.sources.register("acme", "hr", 1.0)
    letters = [NewDeadLetter("hr", 1, [i], "decode", "x", b"{bad") for i in range(250)]
    control.dead_letters.add("acme", letters, 1.0)

    def more(step: str) -> None:
        if step == "begun":
            control.dead_letters.add("acme", [NewDeadLetter("hr", 2, [0], "decode", "x", b"{bad")], 1.0)

    result = replay(failpoint=more).replay("acme", "ann")
    assert len(result.letters) == 250
    assert {letter.attempts for letter in control.dead_letters.list("acme", limit=250)} == {1}


def test_a_log_that_is_down_leaves_the_letters_waiting(
    loaded: Callable[[int], None], control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings
) -> None:
    class Down:
        identity = event_log.identity

        def ends(self) -> dict[int, int]:
            raise Unavailable("down", 10.0)

    loaded(2)
    limits = ingest_settings.ingest.model_copy(update={"retry_deadline_s": 0.05})
    settings = ingest_settings.model_copy(update={"ingest": limits})
    with pytest.raises(Unavailable):
        Replay(control, Down(), settings).replay("acme", "ann")  # type: ignore[arg-type]
    assert {(letter.state, letter.attempts) for letter in control.dead_letters.list("acme")} == {("waiting", 0)}


def test_any_order_of_replays_is_the_same_graph(
    loaded: Callable[[int], None], replay: Callable[..., Replay], logged: Logged, control: ControlStore
) -> None:
    loaded(3)
    replay().replay("acme", "ann")
    records = logged()
    expected = Fold().apply_all(records).state_lines()
    for order in list(permutations(records))[::97]:
        assert Fold().apply_all([*order, *records]).state_lines() == expected
