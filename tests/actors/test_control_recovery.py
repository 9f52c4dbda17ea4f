"""Control store and control partition of the log: an older copy of either, an empty one, and checkpoints."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors import control_recovery as recovery
from actors.stack import Stack
from cluster.errors import Corrupt
from cluster.stores import control_changes as changes
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_journal import PARTITION
from cluster.stores.log import LogLostTail
from tests.actors.control_place import Place, S, T, ends, state, work


def test_a_store_restored_from_an_older_copy_becomes_what_it_was(place: Place) -> None:
    first = place.up()
    work(first, 0)
    old = place.backup()
    for number in range(1, 4):
        work(first, number)
    recovery.seal(first)
    before = state(first)
    place.restore(old)
    again = place.up()
    assert state(again) == before
    accepted = again.control.acceptance.accept(T, S, "key-new", "hash", 1, 9_000.0)
    assert (accepted.epoch, accepted.first_position) == newest(before)
    assert again.control.acceptance.accept(T, S, "key-3", "hash", 10, 9_000.0).replayed
    assert again.control.runs.start(T, "louvain", "s", 9_000.0).run == 5
    assert again.control.leases.acquire("lease", "me", 1.0, 9_000.0) == 5


GIVEN: dict[str, Callable[[Stack], Any]] = {
    "positions": lambda stack: stack.control.acceptance.accept(T, S, None, "hash", 10, 1.0).first_position,
    "epochs": lambda stack: stack.control.loads.epoch_of(T, S, uuid.uuid4().hex, 1.0),
    "runs": lambda stack: stack.control.runs.start(T, "louvain", "snapshot", 1.0).run,
    "tokens": lambda stack: stack.control.leases.acquire("lease", "me", 1.0, 1.0),
    "shards' epochs": lambda stack: stack.control.shards.raise_epoch("shard-0"),
}


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_given_once_is_in_the_log_at_once(place: Place, what: str) -> None:
    stack = place.up()
    stack.control.sources.register(T, S, 1.0)
    stack.control.shards.register("shard-0", "unix:///shard-0", 1.0)
    first = GIVEN[what](stack)
    place.restore(None)
    assert GIVEN[what](place.up()) > first


def newest(rows: dict[str, list[Any]]) -> tuple[int, int]:
    """(epoch, position) that the source gives next: of a new epoch, since a load has opened one meanwhile."""
    (source,) = [row for row in rows["sources"] if row[1] == S]
    return source[8], 1


@pytest.mark.parametrize("kept", [True, False])
def test_an_empty_store_is_made_whole_from_the_log_or_from_a_checkpoint(place: Place, kept: bool) -> None:
    first = place.up()
    for number in range(3):
        work(first, number)
        if not kept:
            with closing(first.open_control_log()) as log:
                recovery.checkpoint(first, log)
    work(first, 3)
    recovery.seal(first)
    before = state(first)
    place.restore(None)
    assert state(place.up()) == before
    if not kept:
        place.restore(None)
        for path in (place.folder / "control").iterdir():
            path.unlink()
        with pytest.raises(Corrupt, match="no newer checkpoint"):
            place.up()


def test_a_store_from_before_there_was_a_partition_is_kept_in_a_checkpoint(place: Place) -> None:
    first = place.open()
    work(first, 0)
    assert recovery.make_whole(first).checkpoint == 1
    work(first, 1)
    recovery.seal(first)
    before = state(first)
    place.restore(None)
    assert state(place.up()) == before


def test_a_log_that_lost_the_partition_s_tail_goes_on_behind_the_store(place: Place) -> None:
    first = place.up()
    work(first, 0)
    old = place.backup()
    work(first, 1)
    recovery.seal(first)
    before = state(first)
    # As a log that was set back looks to the store: the store's number is beyond its end.
    ahead = ends(place) + 40
    set_number(first, ahead)
    again = place.open()
    found = recovery.make_whole(again)
    assert (found.lost, found.checkpoint, found.number) == (40, ahead, ahead)
    assert state(again) == before
    work(again, 2)
    recovery.seal(again)
    before = state(again)
    place.restore(old)
    assert state(place.up()) == before


def set_number(stack: Stack, number: int) -> None:
    with stack.control.database.write(later=True) as connection:
        bound = changes.number_of(connection)
        changes.bind(connection, bound.name, number, serving=False)


@pytest.mark.parametrize("step", ["filled", "checkpoint"])
def test_a_start_that_is_cut_off_while_the_partition_goes_on_is_done_by_the_next(place: Place, step: str) -> None:
    first = place.up()
    work(first, 0)
    recovery.seal(first)
    before = state(first)
    set_number(first, ends(place) + 300)

    def die(at: str) -> None:
        if at == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recovery.make_whole(place.open(), die)
    again = place.up()
    assert state(again) == before
    work(again, 1)
    before = state(again)
    recovery.seal(again)
    place.restore(None)
    assert state(place.up()) == before


def test_what_is_done_for_each_batch_appends_nothing_and_is_in_the_log_a_second_later(place: Place) -> None:
    stack = place.up()
    work(stack, 0)
    token, at = stack.control.leases.acquire("l", "me", 10.0, 1.0), ends(place)
    load = stack.control.loads.list(T)[0]
    for number in range(1, 6):
        stack.control.loads.commit(T, load.id, 1, number - 1, number, acked=1)
        stack.control.leases.renew("l", token, 10.0, 1.0 + number)
        stack.control.shards.report_lag("shard-0", 1, 1.0, 1.0)
        stack.control.positions.report_durable("shard-0", {0: number}, 1.0)
        stack.control.pushes.claim(T, f"k{number}", "hash", "me", 10.0, 1.0, 100)
        stack.control.pushes.keep(T, f"k{number}", {"positions": {}}, 1000)
    assert ends(place) == at
    stopping = threading.Event()
    thread = threading.Thread(target=recovery.keep, args=(stack, stopping))
    thread.start()
    try:
        for _ in range(100):
            if ends(place) > at:
                break
            stopping.wait(0.05)
    finally:
        stopping.set()
        thread.join()
    assert ends(place) == at + 1
    before = state(stack)
    place.restore(None)
    assert state(place.up()) == before


def test_the_partition_is_trimmed_as_checkpoints_are_written(place: Place) -> None:
    place.log = (place.log[0].model_copy(update={"control_bytes": 20_000}), *place.log[1:])
    stack = place.up()
    stopping = threading.Event()
    thread = threading.Thread(target=recovery.keep, args=(stack, stopping))
    thread.start()
    begin = 1
    try:
        for number in range(400):
            stack.control.dead_letters.add(T, [NewDeadLetter(S, 1, (number,), "decode", "b", os.urandom(2_000))], 1.0)
            with closing(stack.open_control_log()) as log:
                begin = log.begins()[PARTITION]
            if begin > 1:
                break
            stopping.wait(0.05)
    finally:
        stopping.set()
        thread.join()
    assert begin > 1
    assert len(list((place.folder / "control").iterdir())) == 1
    before = state(stack)
    place.restore(None)
    assert state(place.up()) == before
    assert next((place.folder / "control").iterdir()).stat().st_mode & 0o077 == 0


def test_another_log_is_refused(place: Place, tmp_path: Path) -> None:
    stack = place.up()
    work(stack, 0)
    recovery.seal(stack)
    other = Place(tmp_path / "other", (*place.log[:2], f"{place.log[2]}x"), place.opened)
    if place.log[0].kind == "kafka":
        kafka = place.log[0].kafka.model_copy(update={"topic_prefix": f"{place.log[2]}x"})
        other.log = (place.log[0].model_copy(update={"kafka": kafka}), *place.log[1:])
    other.folder.mkdir()
    work(other.up(), 0)
    place.log = other.log
    with pytest.raises(Corrupt, match="not the one"):
        place.up()


def test_rows_of_a_newer_version_are_refused_and_columns_of_an_older_one_get_defaults(place: Place) -> None:
    stack = place.up()
    with stack.control.database.write() as connection:
        table = changes.TableChanges(["name", "sequence", "manifest", "updated", "gone"], [["n", 1, "m", 1.0, 5]], [])
        changes.put(connection, changes.ChangeSet("0001", {"pointers": table, "dropped": table}))
        older = changes.TableChanges(["tenant", "name", "owner", "transport", "licence", "priority", "created"],
                                     [[T, S, "", "", "", 3, 1.0]], [])  # fmt: skip
        changes.put(connection, changes.ChangeSet("0001", {"sources": older}))
    assert stack.control.pointers.get("n") is not None
    assert stack.control.sources.get(T, S).next_position == 1
    with pytest.raises(Exception, match="upgrade"), stack.control.database.write() as connection:
        changes.put(connection, changes.ChangeSet("9999", {}))


def test_a_tail_that_is_lost_while_the_system_runs_stops_every_write_until_the_next_start(place: Place) -> None:
    """Entries in the place of those that are lost would make the loss look like none."""
    stack = place.up()
    stack.control.sources.register(T, S, 1.0)
    with stack.control.database.write(later=True) as connection:
        bound = changes.number_of(connection)
        changes.bind(connection, bound.name, bound.number + 2, serving=True)
    for _ in range(3):
        for process in (stack, place.open()):
            with pytest.raises(LogLostTail):
                process.control.sources.register(T, "another", 1.0)
    found = recovery.make_whole(place.open())
    assert found.lost == 2
    place.open().control.sources.register(T, "another", 1.0)
