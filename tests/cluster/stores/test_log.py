"""What a reading of the log may be, without a server."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Corrupt
from cluster.stores.log import (
    Generation,
    LogGap,
    LogLostTail,
    Seam,
    check_continuity,
    check_range,
    check_tails,
    generation_at,
)


@given(st.integers(0, 10**12), st.integers(0, 50))
def test_consecutive_numbers_are_continuous(after: int, count: int) -> None:
    check_continuity(0, after, range(after + 1, after + 1 + count))


@given(st.integers(0, 1000), st.integers(2, 20), st.data())
def test_a_missing_repeated_or_swapped_number_is_corrupt(after: int, count: int, data: st.DataObject) -> None:
    numbers = list(range(after + 1, after + 1 + count))
    at = data.draw(st.integers(1, count - 1))
    numbers[at] = data.draw(st.integers(0, 2000).filter(lambda n: n != numbers[at]))
    with pytest.raises(Corrupt) as raised:
        check_continuity(0, after, numbers)
    assert not isinstance(raised.value, LogGap)


def test_a_later_first_number_is_a_gap_that_says_where_reading_can_go_on() -> None:
    with pytest.raises(LogGap) as raised:
        check_continuity(3, 10, [14, 15])
    assert (raised.value.partition, raised.value.after, raised.value.first_available) == (3, 10, 14)


def test_an_entry_at_or_before_the_position_is_corrupt() -> None:
    with pytest.raises(Corrupt) as raised:
        check_continuity(0, 10, [10, 11])
    assert not isinstance(raised.value, LogGap)


@given(after=st.integers(0, 100), begin=st.integers(1, 100), length=st.integers(0, 100))
def test_a_range_says_whether_a_consumer_can_go_on(after: int, begin: int, length: int) -> None:
    end = begin - 1 + length
    if after > end:
        expected: type[Exception] | None = LogLostTail
    else:
        expected = LogGap if after + 1 < begin else None
    if expected is None:
        check_range(0, after, begin, end)
    else:
        with pytest.raises(expected):
            check_range(0, after, begin, end)


def test_an_entry_is_of_the_generation_that_began_before_it() -> None:
    known = [
        Generation(2, {0: Seam(5, 7, 9), 1: Seam(0, 0, 0)}),
        Generation(4, {0: Seam(12, 12, 12), 1: Seam(3, 3, 3)}),
    ]
    assert [generation_at(known, 0, at) for at in (0, 4, 5, 11, 12, 99)] == [1, 1, 2, 2, 4, 4]
    assert [generation_at(known, 1, at) for at in (0, 2, 3)] == [2, 2, 4]
    assert generation_at([], 1, 7) == 1


def test_a_log_below_what_a_consumer_has_lost_its_tail() -> None:
    check_tails({0: 5, 1: 0}, {0: 5, 1: 0})
    with pytest.raises(LogLostTail, match="partition 1 ends at 0") as raised:
        check_tails({0: 5}, {0: 5, 1: 7})
    assert (raised.value.after, raised.value.end) == (7, 0)


@pytest.mark.parametrize("error", [LogGap(1, 2, 9), LogLostTail(1, 9, 2)])
def test_errors_survive_a_process_boundary(error: Corrupt) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own object
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
