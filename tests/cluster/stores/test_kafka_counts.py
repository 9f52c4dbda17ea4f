"""Records of a partition, as well as an appender can know them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.stores.kafka_counts import RecordCounts


@given(st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=4), max_size=8))
def test_one_appender_counts_exactly(calls: list[list[int]]) -> None:
    counts, number, total = RecordCounts(), 0, 0
    for records in calls:
        totals = counts.totals(0, records)
        counts.appended(0, number + 1, records)
        number, total = number + len(records), total + sum(records)
        assert totals[-1] == total
        assert counts.estimate(0, number) == total
    assert (counts.last(0), counts.last(1), counts.estimate(1, 0)) == (number, 0, 0)


def test_entries_of_others_are_taken_for_average_ones() -> None:
    counts = RecordCounts()
    counts.appended(0, 1, [10, 30])
    assert counts.estimate(0, 5) == 100
    counts.appended(0, 6, [7])
    assert counts.estimate(0, 6) == 107
    assert counts.totals(0, [1, 2]) == [108, 110]


def test_what_an_entry_says_counts_from_there_on_and_never_falls() -> None:
    counts = RecordCounts()
    counts.saw(0, 4, 100)
    assert counts.estimate(0, 4) == 100
    counts.saw(0, 3, 1000)
    assert counts.estimate(0, 4) == 100
    counts.saw(0, 5, 90)
    assert counts.estimate(0, 5) == 100
    assert counts.estimate(0, 2) == 100
