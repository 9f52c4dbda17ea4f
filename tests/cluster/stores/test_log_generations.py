"""Generations of every log: numbers go on, and nobody else appends while one is filled."""

from __future__ import annotations

import pytest

from cluster.errors import Conflict, IntelGraphError, Rejected, Unavailable
from cluster.stores.log import Append, EventLog, Generation, LogGap, Seam
from cluster.stores.open_log import open_log
from tests.cluster.stores.logs import MANY, MB, Place, RedisPlace, fill

pytestmark = pytest.mark.services


def mending(place: Place) -> EventLog:
    log = open_log(*place.arguments(), mending=True)
    place._opened.append(log)
    return log


def seams(*ends: int) -> dict[int, Seam]:
    return {p: Seam(end, end, end) for p, end in enumerate(ends)}


def test_numbers_go_on_and_readers_cross(place: Place) -> None:
    old = place.open()
    fill(old, 5)
    log = mending(place)
    log.begin_generation(Generation(3, seams(5, 0, 0, 0)))
    assert (log.identity.name, log.identity.generation) == (old.identity.name, 3)
    assert fill(log, 2) == [6, 7]
    assert fill(log, 1, partition=1) == [1]
    log.finish_generation()
    log.finish_generation()
    again = place.open()
    assert again.identity == log.identity
    assert again.generations == log.generations == (Generation(3, seams(5, 0, 0, 0), 4),)
    for after in range(8):
        found = [entry.number for entry in again.read(0, after, MANY, MB)]
        assert found == list(range(after + 1, 8)), after
    assert [entry.number for entry in again.read(1, 0, MANY, MB)] == [1]
    assert (again.begins(), again.ends()) == ({0: 1, 1: 1, 2: 1, 3: 1}, {0: 7, 1: 1, 2: 0, 3: 0})
    second = mending(place)
    second.begin_generation(Generation(4, seams(7, 1, 0, 0)))
    assert fill(second, 1) == [8]
    assert [entry.number for entry in second.read(0, 4, MANY, MB)] == [5, 6, 7, 8]


@pytest.mark.parametrize("below", [3, 5, 6, 7, 9, 20])
def test_trimmed_across_generations(place: Place, below: int) -> None:
    fill(place.open(), 5)
    log = mending(place)
    log.begin_generation(Generation(2, seams(5, 0, 0, 0)))
    fill(log, 3)
    log.finish_generation()
    log = place.open()
    begin = min(below, 9)
    assert log.trim(0, below) == begin - 1
    assert (log.begins()[0], log.ends()[0]) == (begin, 8)
    assert [entry.number for entry in log.read(0, begin - 1, MANY, MB)] == list(range(begin, 9))
    with pytest.raises(LogGap):
        log.read(0, begin - 2, MANY, MB)
    assert place.open().ends()[0] == 8


def test_who_does_not_know_of_it_appends_nothing(place: Place) -> None:
    old = place.open()
    fill(old, 5)
    log = mending(place)
    log.begin_generation(Generation(2, seams(5, 0, 0, 0)))
    for partition in (0, 1):
        with pytest.raises(IntelGraphError):
            old.append([Append(partition, b"late", 1)])
    assert log.ends() == {0: 5, 1: 0, 2: 0, 3: 0}
    assert fill(log, 1) == [6]
    log.finish_generation()
    if isinstance(place, RedisPlace):
        with pytest.raises(Unavailable, match="generation 2 by now"):
            old.read(0, 5, MANY, MB)
        with pytest.raises(IntelGraphError):
            old.append([Append(0, b"late", 1)])
    else:  # it is filled: what is appended now has a number that nobody has had
        assert old.append([Append(0, b"late", 1)]) == [7]
    assert [entry.number for entry in old.read(0, 0, 3, MB)] == [1, 2, 3]


def test_nobody_else_opens_it_until_it_is_filled(place: Place) -> None:
    fill(place.open(), 5)
    log = mending(place)
    assert not log.is_unfinished
    log.begin_generation(Generation(2, seams(5, 0, 0, 0)))
    with pytest.raises(Unavailable, match="being opened"):
        place.open()
    second = mending(place)
    assert second.is_unfinished
    assert second.generations == log.generations
    second.finish_generation()
    assert not log.is_unfinished
    place.open()


def test_opened_by_one_only_and_at_the_ends_that_are_there(place: Place) -> None:
    old = place.open()
    fill(old, 5)
    first, second = mending(place), mending(place)
    with pytest.raises(Conflict):
        first.begin_generation(Generation(2, seams(4, 0, 0, 0)))
    with pytest.raises(ValueError, match="mending"):
        old.begin_generation(Generation(2, seams(5, 0, 0, 0)))
    assert fill(old, 1) == [6]
    first.begin_generation(Generation(2, seams(6, 0, 0, 0)))
    for number in (2, 3):
        with pytest.raises(Conflict):
            second.begin_generation(Generation(number, seams(6, 0, 0, 0)))
    assert mending(place).identity.generation == 2


def test_it_survives_sigkill(own_place: Place) -> None:
    fill(own_place.open(), 5)
    log = mending(own_place)
    log.begin_generation(Generation(2, seams(5, 0, 0, 0)))
    fill(log, 2)
    own_place.kill()
    own_place.start()
    again = mending(own_place)
    assert (again.is_unfinished, again.ends()[0], again.identity.generation) == (True, 7, 2)
    assert fill(again, 1) == [8]
    again.finish_generation()
    own_place.kill()
    own_place.start()
    assert [entry.number for entry in own_place.open().read(0, 3, MANY, MB)] == [4, 5, 6, 7, 8]


def test_what_was_there_before_has_room(place: Place) -> None:
    settings, address, name = place.arguments(max_bytes=1)
    fill(place.open(), 1)
    log = open_log(settings, address, name, mending=True)
    log.begin_generation(Generation(2, seams(1, 0, 0, 0)))
    assert fill(log, 1) == [2]
    log.close()


def test_more_partitions_begin_at_none(place: Place) -> None:
    old = place.open()
    fill(old, 5)
    log = mending(place)
    log.begin_generation(Generation(2, seams(5, *[0] * 7), 8))
    assert (log.identity.partitions, log.all_partitions) == (8, 8)
    with pytest.raises(IntelGraphError):
        old.append([Append(0, b"late", 1)])
    log.finish_generation()
    for number in (4, 16):
        with pytest.raises(Rejected, match=f"has 8 partitions.*log repartition {number}"):
            place.open(partitions=number)
    again = place.open(partitions=8)
    assert fill(again, 2, partition=7) == [1, 2]
    assert fill(again, 1) == [6]
    assert (again.ends(), again.begins()) == ({**dict.fromkeys(range(8), 0), 0: 6, 7: 2}, dict.fromkeys(range(8), 1))
    assert [entry.number for entry in again.read(7, 0, MANY, MB)] == [1, 2]
    assert [entry.number for entry in again.read(0, 3, MANY, MB)] == [4, 5, 6]
    assert again.trim(7, 2) == 1
    assert place.open(partitions=8).begins()[7] == 2
    assert again.generations == (Generation(2, seams(5, *[0] * 7), 8),)


def test_partitions_that_are_given_up_stay_readable(place: Place) -> None:
    fill(place.open(), 5, partition=3)
    log = mending(place)
    log.begin_generation(Generation(2, seams(0, 0, 0, 5), 2))
    log.finish_generation()
    with pytest.raises(Rejected, match="has 2 partitions"):
        place.open()
    again = place.open(partitions=2)
    assert (again.identity.partitions, again.all_partitions, again.ends()) == (2, 4, {0: 0, 1: 0, 2: 0, 3: 5})
    with pytest.raises(ValueError, match="partition 3 of 2"):
        fill(again, 1, partition=3)
    assert [entry.number for entry in again.read(3, 2, MANY, MB)] == [3, 4, 5]
    assert again.trim(3, 6) == 5
    assert again.begins()[3] == 6
    second = mending(place)
    second.begin_generation(Generation(3, seams(0, 0, 0, 5), 4))
    second.finish_generation()
    assert fill(place.open(), 1, partition=3) == [6]


def test_another_number_survives_sigkill(own_place: Place) -> None:
    fill(own_place.open(), 5)
    log = mending(own_place)
    log.begin_generation(Generation(2, seams(5, *[0] * 5), 6))
    own_place.kill()
    own_place.start()
    again = mending(own_place)
    assert (again.is_unfinished, again.identity.partitions, again.all_partitions) == (True, 6, 6)
    again.finish_generation()
    assert fill(own_place.open(partitions=6), 1, partition=5) == [1]
