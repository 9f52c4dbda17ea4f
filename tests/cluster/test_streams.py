"""What a stream does when its topic changes under it: the decision alone, and as the control store keeps it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.streams.follow import follow, skipped
from cluster.streams.model import Look, StreamPartition

TOPIC = "aa"


def look(ends: list[int], firsts: list[int] | None = None, topic: str = TOPIC) -> Look:
    return Look(topic, dict(enumerate(firsts or [0] * len(ends))), dict(enumerate(ends)))


def read(*offsets: int, epoch: int = 1, end: int = 0) -> list[StreamPartition]:
    return [StreamPartition(p, epoch, 0, offset, end=max(end, offset)) for p, offset in enumerate(offsets)]


def test_a_new_stream_begins_where_its_topic_begins_or_ends() -> None:
    begun = follow("", [], look([5, 9], [2, 0]), "earliest")
    assert [(p.start, p.offset, p.end) for p in begun.partitions] == [(0, 2, 5), (0, 0, 9)]
    assert (begun.fresh, begun.stop, begun.notes) == ({0, 1}, "", ())
    begun = follow("", [], look([5, 9], [2, 0]), "latest")
    assert [(p.start, p.offset) for p in begun.partitions] == [(5, 5), (9, 9)]


def test_a_topic_that_only_grows_changes_nothing_but_its_ends() -> None:
    found = follow(TOPIC, read(3, 4), look([10, 4]), "earliest")
    assert [(p.offset, p.end, p.lag_records) for p in found.partitions] == [(3, 10, 7), (4, 4, 0)]
    assert not found.fresh
    assert not found.notes


def test_a_topic_that_was_made_again_is_read_from_its_beginning_under_a_new_epoch() -> None:
    found = follow(TOPIC, read(3, 4, end=6), look([1], topic="bb"), "latest")
    assert [(p.partition, p.offset, p.start) for p in found.partitions] == [(0, 0, 0)]
    assert found.fresh == {0}
    assert "5 records of the old one were not read" in found.notes[0]


def test_what_was_removed_unread_stops_the_stream_until_it_is_given_up() -> None:
    now = look([20, 20], [7, 0])
    found = follow(TOPIC, read(3, 4), now, "earliest")
    assert found.stop == "partition 0: offsets 3 to 6 were removed before they were read"
    assert [p.offset for p in found.partitions] == [3, 4]
    assert [p.offset for p in skipped(found.partitions, now)] == [7, 4]


def test_added_partitions_wait_until_the_old_ones_are_read_to_where_they_stood() -> None:
    known = read(3, 10, end=10)
    added = follow(TOPIC, known, look([12, 11, 2]), "earliest")
    assert [(p.offset, p.cut, p.epoch) for p in added.partitions] == [(3, 10, 1), (10, 10, 1), (0, 0, 0)]
    assert not added.fresh
    assert "partitions [2] were added" in added.notes[0]
    again = follow(TOPIC, added.partitions, look([12, 11, 2]), "earliest")
    assert (again.partitions, again.fresh, again.notes) == (added.partitions, frozenset(), ())
    drained = [replace(part, offset=max(part.offset, 10)) for part in again.partitions[:2]]
    over = follow(TOPIC, [replace(drained[0], offset=12), drained[1], again.partitions[2]], look([12, 11, 2]), "latest")
    assert [(p.offset, p.start, p.cut) for p in over.partitions] == [(10, 10, None), (10, 10, None), (0, 0, None)]
    assert over.fresh == {0, 1, 2}


def test_a_lost_tail_opens_a_new_range_of_that_partition_at_its_end() -> None:
    found = follow(TOPIC, read(8, 4), look([6, 4]), "earliest")
    assert [(p.offset, p.start) for p in found.partitions] == [(6, 6), (4, 0)]
    assert found.fresh == {0}
    assert "ends at offset 6, and was read to 8" in found.notes[0]


def test_what_was_read_while_the_look_was_under_way_is_no_lost_tail() -> None:
    seen = look([10])._replace(reached={0: 8})
    found = follow(TOPIC, read(13), seen, "earliest")
    assert ([p.offset for p in found.partitions], found.fresh, found.notes) == ([13], frozenset(), ())
    lost = follow(TOPIC, read(13), look([10])._replace(reached={0: 12}), "earliest")
    assert ([p.offset for p in lost.partitions], lost.fresh) == ([10], {0})


def test_a_tail_that_is_lost_while_partitions_are_added_does_not_hold_up_the_new_range() -> None:
    known = [StreamPartition(0, 1, 0, 5, cut=10, end=10), StreamPartition(1, 0, 0, 0, cut=0)]
    found = follow(TOPIC, known, look([5, 3]), "earliest")
    assert [(p.offset, p.cut) for p in found.partitions] == [(5, None), (0, None)]
    assert found.fresh == {0, 1}


def test_a_tail_that_is_lost_and_has_grown_again_opens_a_new_range_where_the_loss_begins() -> None:
    known = [replace(part, leader_epoch=3, note="cannot be read") for part in read(8, 4)]
    found = follow(TOPIC, known, look([20, 4])._replace(replaced={0: 6}), "earliest")
    assert [(p.offset, p.start, p.leader_epoch) for p in found.partitions] == [(6, 6, -1), (4, 0, 3)]
    assert [p.note for p in found.partitions] == ["", "cannot be read"]
    assert found.fresh == {0}
    assert "was read to offset 8, and has other records now from 6 on" in found.notes[0]
    late = look([20, 4])._replace(replaced={0: 6}, reached={0: 5, 1: 4})
    assert not follow(TOPIC, known, late, "earliest").fresh


def test_a_loss_below_a_cut_is_read_again_to_the_cut_that_is_left() -> None:
    known = [StreamPartition(0, 1, 0, 8, cut=8, end=8), StreamPartition(1, 0, 0, 0, cut=0)]
    found = follow(TOPIC, known, look([20, 3])._replace(replaced={0: 6}), "earliest")
    assert [(p.offset, p.cut) for p in found.partitions] == [(6, None), (0, None)]
    assert found.fresh == {0, 1}


def test_a_partition_without_leader_stays_as_it_is_and_the_others_go_on() -> None:
    now = Look(TOPIC, {0: 0}, {0: 20}, unseen=frozenset({1}))
    found = follow(TOPIC, read(3, 4), now, "earliest")
    assert [(p.offset, p.end) for p in found.partitions] == [(3, 20), (4, 4)]
    assert (found.fresh, found.stop, found.notes) == (frozenset(), "", ())


def test_a_partition_that_has_no_leader_at_the_first_look_begins_at_its_first_record_when_it_has_one() -> None:
    begun = follow("", [], Look(TOPIC, {0: 2}, {0: 5}, unseen=frozenset({1})), "earliest")
    assert [(p.offset, p.epoch, p.cut) for p in begun.partitions] == [(2, 0, None), (0, 0, None)]
    assert begun.fresh == {0}
    known = [replace(begun.partitions[0], epoch=1), begun.partitions[1]]
    late = follow(TOPIC, known, look([9, 7], [2, 3]), "earliest")
    assert [(p.offset, p.start) for p in late.partitions] == [(2, 0), (3, 3)]
    assert (late.fresh, late.notes) == ({1}, ())


def test_a_new_range_of_all_waits_for_partitions_without_leader() -> None:
    known = [StreamPartition(0, 1, 0, 10, cut=10, end=10), StreamPartition(1, 0, 0, 0, cut=0)]
    unseen = Look(TOPIC, {0: 0}, {0: 12}, unseen=frozenset({1}))
    assert not follow(TOPIC, known, unseen, "earliest").fresh
    found = follow(TOPIC, known, look([12, 2], [0, 1]), "earliest")
    assert [(p.offset, p.cut) for p in found.partitions] == [(10, None), (1, None)]


def test_where_change_capture_carries_something_nothing_is_read_again_at_a_cut() -> None:
    known = [StreamPartition(0, 1, 0, 12, cut=10, end=10, carried=77), StreamPartition(1, 0, 0, 0, cut=0)]
    found = follow(TOPIC, known, look([12, 2]), "earliest")
    assert [(p.offset, p.carried) for p in found.partitions] == [(12, 77), (0, 0)]


def test_the_age_of_what_was_read_last_counts_only_while_there_is_more() -> None:
    part = StreamPartition(0, 1, 0, 5, end=9, record_ms=60_000)
    assert part.lag_s(100.0) == 40.0
    assert replace(part, offset=9).lag_s(100.0) == 0.0
    assert replace(part, record_ms=0).lag_s(100.0) == replace(part, record_ms=-1).lag_s(100.0) == 0.0


ENDS = st.lists(st.integers(0, 20), min_size=1, max_size=4)


@given(st.data(), ENDS)
def test_whatever_happens_nothing_unread_is_passed_over(data: st.DataObject, ends: list[int]) -> None:
    """Partitions grow, ends fall and rise; a reader reads as far as it is let. What is there is read in the end."""
    state, topic, epochs = follow("", [], look(ends), "earliest"), TOPIC, 1
    parts = [replace(p, epoch=1) for p in state.partitions]
    for _ in range(data.draw(st.integers(1, 6))):
        parts = [_read_some(part, data.draw(st.integers(0, 20))) for part in parts]
        ends = [max(0, end + data.draw(st.integers(-5, 5))) for end in ends] + data.draw(st.just([]) | ENDS)[:1]
        found = follow(topic, parts, look(ends), "earliest")
        epochs += 1
        assert not found.stop
        for part in found.partitions:
            assert part.offset <= max(part.end, part.cut or 0)
        parts = [replace(p, epoch=epochs) if p.partition in found.fresh else p for p in found.partitions]
    for _ in range(3):
        parts = [_read_some(part, 1_000) for part in parts]
        found = follow(topic, parts, look(ends), "earliest")
        parts = [replace(p, epoch=epochs + 1) if p.partition in found.fresh else p for p in found.partitions]
    assert [_read_some(part, 1_000).offset for part in parts] == ends
    assert all(part.cut is None for part in parts)


def _read_some(part: StreamPartition, count: int) -> StreamPartition:
    if not part.epoch or part.drained:
        return part
    return replace(part, offset=min(part.offset + count, part.end, part.end if part.cut is None else part.cut))
