"""What is appended to the control partition, and what it means when writers die or are cut off in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from actors import control_recovery as recovery
from cluster.errors import Conflict, OutcomeUnknown, Unavailable
from cluster.stores import control_changes as changes
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.log import Append, EventLog
from tests.actors.control_place import Place, S, T, ends, state, work


class Spoilt:
    """A connection to the partition that dies, or says that it does not know, once it has appended so many."""

    def __init__(self, log: EventLog, after: int, end: Callable[[], None], appends: bool = True) -> None:
        self._log, self._left, self._end, self._appends = log, after, end, appends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, entries: Sequence[Append]) -> list[int]:
        self._left -= 1
        if self._left:
            return self._log.append(entries)
        if self._appends:
            self._log.append(entries)
        self._end()
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("appends", "by_start"),
    [
        (True, False),
        pytest.param(True, True, marks=pytest.mark.chaos),
        pytest.param(False, False, marks=pytest.mark.chaos),
    ],
)
def test_killed_between_append_and_commit_at_each_step(place: Place, appends: bool, by_start: bool) -> None:
    last = place.up()
    work(last, 0)
    steps = 0
    while dies(place, steps + 1, appends):
        steps += 1
        last = place.up() if by_start else place.open()
        with suppress(Conflict):
            last.control.audit.append(T, "me", "after", S, 1.0)
        assert last.control.audit.append(T, "me", "after", S, 1.0)
    assert steps >= 10
    recovery.seal(last)
    before = state(last)
    place.restore(None)
    assert state(place.up()) == before


def dies(place: Place, at: int, appends: bool) -> bool:
    """Works in a process that is killed at its `at`th append; whether there were so many."""
    if place.log[0].kind == "kafka":  # threads of a client do not come along into a child

        def gone() -> None:
            raise KeyboardInterrupt

        try:
            work(place.open(partial(Spoilt, after=at, end=gone, appends=appends)), at)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            return True
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            end = partial(os._exit, 7)
            work(place.open(partial(Spoilt, after=at, end=end, appends=appends)), at)  # type: ignore[arg-type]
            code = 0
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 7)
    return code == 7


@pytest.mark.parametrize("place", [pytest.param("postgres", marks=pytest.mark.production)], indirect=True)
def test_a_commit_that_is_cut_off_after_the_log_has_the_change_has_an_unknown_outcome(place: Place) -> None:
    stack = place.up()

    class CutOff(Spoilt):
        def append(self, entries: Sequence[Append]) -> list[int]:
            numbers = self._log.append(entries)
            assert place.postgres is not None
            place.postgres.cut_off(place.control.database)
            return numbers

    with pytest.raises(OutcomeUnknown, match="the log has the change"):
        place.open(lambda log: CutOff(log, 0, lambda: None)).control.sources.register(T, "cut", 1.0)  # type: ignore[arg-type, return-value]
    with suppress(Conflict):
        stack.control.sources.register(T, "after", 1.0)
    stack.control.sources.register(T, "after", 1.0)
    assert [s.name for s in stack.control.sources.list(T)] == ["after", "cut"]


def test_an_append_whose_outcome_is_unknown_is_done_or_void_and_never_half(place: Place) -> None:
    stack = place.up()

    def unknown() -> None:
        raise OutcomeUnknown("the connection broke")

    for appends in (True, False):
        worker = place.open(lambda log, appends=appends: Spoilt(log, 1, unknown, appends))  # type: ignore[misc]
        with pytest.raises(OutcomeUnknown):
            worker.control.sources.register(T, f"source-{appends}", 1.0)
    with suppress(Conflict):
        stack.control.sources.register(T, "after", 1.0)
    stack.control.sources.register(T, "after", 1.0)
    assert [s.name for s in stack.control.sources.list(T)] == ["after", "source-True"]


def test_an_entry_that_comes_late_is_void(place: Place) -> None:
    stack = place.up()
    kept: list[Append] = []

    class Late(Spoilt):
        def append(self, entries: Sequence[Append]) -> list[int]:
            kept.extend(entries)
            raise OutcomeUnknown("the connection broke")

    with pytest.raises(OutcomeUnknown):
        place.open(lambda log: Late(log, 0, lambda: None)).control.sources.register(T, "late", 1.0)  # type: ignore[arg-type, return-value]
    stack.control.sources.register(T, "first", 1.0)
    with closing(stack.open_control_log()) as log:
        log.append(kept)
    with pytest.raises(Conflict):
        stack.control.sources.register(T, "second", 1.0)
    stack.control.sources.register(T, "second", 1.0)
    before = state(stack)
    assert [s.name for s in stack.control.sources.list(T)] == ["first", "second"]
    place.restore(None)
    assert state(place.up()) == before


def test_what_a_load_has_read_is_counted_with_how_far_it_was_read(place: Place) -> None:
    """An entry whose writer was killed is put in after the load went on: it may set rows back, and no sum."""
    stack = place.up()
    work(stack, 0)
    loads, load = stack.control.loads, stack.control.loads.list(T)[0]
    loads.commit(T, load.id, 7, 0, 5, acked=4, dead=1)
    recovery.seal(stack)
    recovery.make_whole(stack)
    loads.record_outcomes(T, load.id, applied=4, duplicate=0, stale=0)  # notes the load's row, and no range's

    def unknown() -> None:
        raise OutcomeUnknown("the connection broke")

    with pytest.raises(OutcomeUnknown):
        place.open(lambda log: Spoilt(log, 1, unknown)).control.sources.register(T, "killed", 1.0)  # type: ignore[arg-type, return-value]
    loads.commit(T, load.id, 7, 5, 9, acked=3, dead=1)
    with pytest.raises(Conflict):
        stack.control.sources.register(T, "after", 1.0)
    now = loads.get(T, load.id)
    assert loads.positions(T, load.id)[7] == 9
    assert (now.acked - load.acked, now.dead - load.dead) == (7, 2)


def test_of_many_changes_of_a_row_the_last_one_is_put() -> None:
    def one(rows: list[list[Any]], gone: list[list[Any]]) -> changes.ChangeSet:
        return changes.ChangeSet("1", {"leases": changes.TableChanges(["name", "token"], rows, gone)})

    sets = [one([["a", 1], ["b", 1]], []), one([["a", 2]], [["b"]]), one([["b", 3]], [["a"]]), one([["c", 4]], [])]
    left = [(found.tables["leases"].rows, found.tables["leases"].gone) for found in changes.latest(sets)]
    assert left == [([], []), ([], [["b"]]), ([["b", 3]], [["a"]]), ([["c", 4]], [])]


def test_a_change_that_is_larger_than_an_entry_is_cut_and_a_beginning_alone_is_void(place: Place) -> None:
    stack = place.up()
    settings = place.log[0].model_copy(update={"entry_bytes": 2 << 20})
    place.log = (settings, *place.log[1:])
    small = place.open()
    letter, most = NewDeadLetter(S, 1, (1,), "decode", "bad", os.urandom(7 << 20)), 8 << 20
    first = ends(place)
    small.control.dead_letters.add(T, [letter], 1.0, most)
    assert ends(place) == first + 4

    class Halfway(Spoilt):
        def append(self, entries: Sequence[Append]) -> list[int]:
            self._log.append(entries[:2])
            raise OutcomeUnknown("the connection broke")

    half = place.open(lambda log: Halfway(log, 0, lambda: None))  # type: ignore[arg-type, return-value]
    with pytest.raises(OutcomeUnknown):
        half.control.dead_letters.add(T, [replace(letter, position=(2,))], 1.0, most)
    with suppress(Conflict):
        stack.control.sources.register(T, S, 1.0)
    stack.control.sources.register(T, S, 1.0)
    before = state(stack)
    assert len(before["dead_letters"]) == 1
    place.restore(None)
    assert state(place.up()) == before


def test_while_it_is_up_nothing_is_written_that_the_log_does_not_take(place: Place) -> None:
    stack = place.up()

    def refused(log: EventLog) -> EventLog:
        log.close()
        raise Unavailable("the event log does not answer")

    worker = place.open(refused)
    before = state(stack)
    for write in (
        lambda: worker.control.sources.register(T, S, 1.0),
        lambda: worker.control.leases.acquire("x", "y", 1.0, 1.0),
    ):
        with pytest.raises(Unavailable):
            write()
    assert state(stack) == before
    worker.control.positions.report_durable("shard-0", {0: 1}, 1.0)  # such a thing may come later
    recovery.seal(stack)
    place.open(refused).control.sources.register(T, S, 1.0)  # the next start appends it
    before = state(stack)
    place.up()
    place.restore(None)
    assert state(place.up()) == before


def test_a_store_of_before_the_start_takes_nothing_from_who_has_seen_it_served(place: Place) -> None:
    """A standby that lags by a whole start became the server: its row says that nobody serves it."""
    first = place.up()
    work(first, 0)
    recovery.seal(first)
    first.control.database.flush()  # nothing has changed: nothing is refused
    before = place.backup()
    served = place.up()
    work(served, 1)
    place.restore(before)
    with pytest.raises(Unavailable, match="set back"):
        served.control.audit.append(T, "me", "lost", S, 1.0)
    assert recovery.make_whole(place.open()).change_sets > 0
    served.control.audit.append(T, "me", "kept", S, 2.0)
    assert {entry.action for entry in served.control.audit.list(T)} == {"work", "kept"}
