"""What every event log does, on real servers: numbers, durability, continuity, bounds, errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import IntelGraphError, OutcomeUnknown, Overloaded, Rejected, Unavailable
from cluster.stores.log import Append, EventLog, LogGap, LogLostTail
from tests.cluster.stores.logs import MANY, MB, Place, fill, fill_until_refused

pytestmark = pytest.mark.services


@pytest.fixture
def log(place: Place) -> EventLog:
    """A new log."""
    return place.open()


def test_numbers_start_at_one_and_entries_come_back_as_they_were(log: EventLog) -> None:
    assert log.ends() == {0: 0, 1: 0, 2: 0, 3: 0}
    assert log.begins() == {0: 1, 1: 1, 2: 1, 3: 1}
    assert log.append([Append(2, b"\x00\xff", 7), Append(1, b"", 0), Append(2, b"x", 1)]) == [1, 1, 2]
    first, second = log.read(2, 0, MANY, MB)
    assert (first.number, first.data, first.records) == (1, b"\x00\xff", 7)
    assert (second.number, second.data, second.records) == (2, b"x", 1)
    assert abs(first.appended_ms - time.time() * 1000) < 60_000
    assert log.ends() == {0: 0, 1: 1, 2: 2, 3: 0}
    assert log.append([]) == []


def test_when_records_were_polled_comes_back_where_it_was_said(log: EventLog) -> None:
    log.append([Append(0, b"x", 1, 1_700_000_000_123), Append(0, b"y", 1)])
    assert [entry.polled_ms for entry in log.read(0, 0, MANY, MB)] == [1_700_000_000_123, 0]


def test_numbers_go_on_after_trim_and_restart(own_place: Place) -> None:
    log = own_place.open()
    fill(log, 5)
    assert log.trim(0, 6) == 5
    assert (log.begins()[0], log.ends()[0]) == (6, 5)
    own_place.stop()
    own_place.start()
    again = own_place.open()
    assert again.identity == log.identity
    assert (again.begins()[0], again.ends()[0]) == (6, 5)
    assert fill(again, 3) == [6, 7, 8]
    assert [entry.number for entry in again.read(0, 5, MANY, MB)] == [6, 7, 8]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(1, 4), st.integers(-30, -1)), max_size=12))
def test_any_appends_and_trims_leave_a_gapless_log(place: Place, steps: list[int]) -> None:
    """A positive step appends so many entries, a negative one trims below its absolute value."""
    here = place.beside(f"{place.name}{time.monotonic_ns()}")
    log = here.open()
    begin, end = 1, 0
    for step in steps:
        if step > 0:
            assert fill(log, step) == list(range(end + 1, end + step + 1))
            end += step
        else:
            removed = log.trim(0, -step)
            begin, expected = max(begin, min(-step, end + 1)), begin
            assert removed == begin - expected
        assert (log.begins()[0], log.ends()[0]) == (begin, end)
        assert [entry.number for entry in log.read(0, begin - 1, MANY, 100 * MB)] == list(range(begin, end + 1))
    here.close()


def test_two_openers_make_one_log(place: Place) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(place.open().identity)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert (found[0].generation, found[0].partitions) == (1, 4)
    assert place.beside(f"{place.name}b").open().identity.name != found[0].name


def test_the_log_can_be_opened_while_others_append(place: Place) -> None:
    log = place.open()
    stop = threading.Event()

    def append() -> None:
        while not stop.is_set():
            log.append([Append(0, b"x", 1), Append(1, b"x", 1)])

    thread = threading.Thread(target=append)
    thread.start()
    try:
        for _ in range(10):
            place.open().close()
    finally:
        stop.set()
        thread.join()


def test_appenders_in_several_threads_share_one_sequence(log: EventLog) -> None:
    numbers: list[int] = []

    def run() -> None:
        for _ in range(20):
            numbers.extend(fill(log, 3))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 241))


def test_two_connections_share_one_sequence(place: Place) -> None:
    first, second = place.open(), place.open()
    assert fill(first, 2) == [1, 2]
    assert fill(second, 1) == [3]
    assert fill(first, 1) == [4]
    assert [entry.number for entry in second.read(0, 0, MANY, MB)] == [1, 2, 3, 4]


def test_a_position_below_the_first_entry_is_a_gap(log: EventLog) -> None:
    fill(log, 10)
    log.trim(0, 6)
    with pytest.raises(LogGap) as raised:
        log.read(0, 3, MANY, MB)
    assert raised.value.first_available == 6
    assert [entry.number for entry in log.read(0, 5, 1, MB)] == [6]
    log.trim(0, 11)
    with pytest.raises(LogGap) as raised:
        log.read(0, 3, MANY, MB)
    assert raised.value.first_available == 11
    assert log.read(0, 10, MANY, MB) == []


def test_a_position_above_the_end_is_a_lost_tail(log: EventLog) -> None:
    fill(log, 3)
    assert log.read(0, 3, MANY, MB) == []
    with pytest.raises(LogLostTail) as raised:
        log.read(0, 4, MANY, MB)
    assert raised.value.end == 3
    with pytest.raises(LogLostTail):
        log.read_many({1: 0, 0: 9}, MANY, MB, block_ms=20)


def test_bytes_bound_a_reading_and_one_entry_always_comes(log: EventLog) -> None:
    fill(log, 10, size=1000)
    after, sizes = 0, []
    while entries := log.read(0, after, MANY, 2500):
        after = entries[-1].number
        sizes.append(len(entries))
    assert after == 10
    assert max(sizes) == 2
    assert len(log.read(0, 0, MANY, 1)) == 1
    log.read(0, 0, MANY, MB)
    assert len(log.read(0, 0, 3, MB)) == 3


def test_large_entries_of_every_partition_come_through_small_readings(log: EventLog) -> None:
    log.append([Append(partition, bytes(MB), 1) for partition in range(4)])
    after, turns = dict.fromkeys(range(4), 0), 0
    while min(after.values()) < 1 and turns < 8:
        found = log.read_many(after, MANY, 1000)
        after |= {partition: entries[-1].number for partition, entries in found.items()}
        turns += 1
    assert after == {0: 1, 1: 1, 2: 1, 3: 1}


def test_several_partitions_wake_one_reader(log: EventLog) -> None:
    fill(log, 2, partition=0)
    timer = threading.Timer(0.15, lambda: fill(log, 1, partition=3))
    began = time.monotonic()
    timer.start()
    found = log.read_many({0: 2, 3: 0, 1: 0}, MANY, MB, block_ms=2400)
    waited_s = time.monotonic() - began
    timer.join()
    assert {partition: [entry.number for entry in entries] for partition, entries in found.items()} == {3: [1]}
    assert 0.15 <= waited_s < 2.4
    assert log.read_many({}, MANY, MB) == {}
    with pytest.raises(ValueError, match="block_ms"):
        log.read(0, 2, MANY, MB, block_ms=2600)


def test_waiting_for_a_number(log: EventLog) -> None:
    fill(log, 1)
    assert log.wait_for(0, 1, 0)
    assert not log.wait_for(0, 2, 150)
    timer = threading.Timer(0.1, lambda: fill(log, 2))
    timer.start()
    assert log.wait_for(0, 3, 2000)
    timer.join()


def test_records_are_counted_as_appended(place: Place) -> None:
    log = place.open()
    assert log.records() == {}
    fill(log, 3)
    log.append([Append(0, b"x", 10), Append(1, b"y", 0), Append(1, b"z", 5)])
    assert log.records() == {0: 16, 1: 5}
    log.trim(0, 3)
    assert place.open().records() == {0: 16, 1: 5}


def test_bounds_refuse_before_anything_is_sent(place: Place) -> None:
    log = place.open(entry_bytes=100)
    with pytest.raises(Rejected, match="entry_bytes"):
        log.append([Append(0, b"fits", 1), Append(0, b"x" * 101, 1)])
    assert log.ends()[0] == 0
    with pytest.raises(ValueError, match="partition 4 of 4"):
        log.append([Append(4, b"", 0)])
    fill(log, 1)
    full = place.open(entry_bytes=100, max_bytes=1)
    with pytest.raises(Overloaded, match="full") as raised:
        full.append([Append(0, b"x", 1)])
    assert raised.value.retry_after_s > 0
    assert log.ends()[0] == 1


def test_what_is_appended_between_two_readings_counts(place: Place) -> None:
    bound = place.open().bytes_used() + 3 * MB
    log = place.open(max_bytes=bound)
    with pytest.raises(Overloaded, match="max_bytes"):
        fill_until_refused(log, 6)
    assert 3 <= log.ends()[0] <= 4
    log.trim(0, 10)


def test_another_number_of_partitions_is_refused(place: Place) -> None:
    place.open()
    with pytest.raises(Rejected, match=r"has 4 partitions, and log\.partitions is 8: set it to 4.*log repartition 8"):
        place.open(partitions=8)


def test_a_dead_server_is_unavailable_and_a_restarted_one_serves(own_place: Place) -> None:
    log = own_place.open()
    fill(log, 3)
    own_place.kill()
    for call in (lambda: fill(log, 1), log.ends, lambda: log.read(0, 0, 1, MB), lambda: log.trim(0, 1)):
        with pytest.raises(Unavailable):
            call()
    with pytest.raises(Unavailable):
        own_place.open()
    own_place.start()
    assert fill(log, 1) == [4]
    assert [entry.number for entry in log.read(0, 0, 1, MB)] == [1]


def test_a_server_that_stops_answering_leaves_the_outcome_unknown(own_place: Place) -> None:
    fill(own_place.open(), 1)
    log = own_place.open(timeout_s=2.0)
    fill(log, 1)
    log.bytes_used()
    own_place.pause()
    try:
        with pytest.raises(OutcomeUnknown, match="same again"):
            fill(log, 1)
        with pytest.raises(Unavailable):
            log.read(0, 0, 1, MB)
    finally:
        own_place.resume()
    assert fill(log, 1)[0] in (3, 4)


def test_acknowledged_entries_survive_sigkill(own_place: Place) -> None:
    acked: list[int] = []

    def run(log: EventLog) -> None:
        try:
            while True:
                acked.extend(fill(log, 5, size=2000))
        except IntelGraphError:
            return

    for _ in range(3):
        log = own_place.open()
        thread = threading.Thread(target=run, args=(log,))
        before, until = len(acked), time.monotonic() + 10
        thread.start()
        while len(acked) < before + 50 and time.monotonic() < until:
            time.sleep(0.01)
        own_place.kill()
        thread.join()
        own_place.start()
        again = own_place.open()
        assert len(acked) >= before + 50
        assert again.ends()[0] >= max(acked)
        assert len(set(acked)) == len(acked)
        assert again.read(0, max(acked) - 1, 1, MB)[0].number == max(acked)


def test_a_closed_log_closes_again(log: EventLog) -> None:
    log.close()
    log.close()


def test_a_child_process_opens_its_own(log: EventLog, place: Place) -> None:
    code = (
        "import pickle, sys\n"
        "from cluster.stores.log import Append\n"
        "from cluster.stores.open_log import open_log\n"
        "log = open_log(*pickle.loads(sys.stdin.buffer.read()))\n"
        "print(log.append([Append(0, b'x', 1)]))\n"
        "log.close()\n"
    )
    fill(log, 1)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(place.arguments()),
        capture_output=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.strip() == b"[2]"
    assert [entry.number for entry in log.read(0, 1, 1, MB)] == [2]
