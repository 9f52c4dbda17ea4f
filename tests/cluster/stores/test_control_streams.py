"""Streams as the control store keeps them: epochs of ranges, and offsets that one reader at a time moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.errors import Conflict, Fenced, Forbidden, NotFound, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.control_streams import Read, partition_lease
from cluster.streams.model import Look, StreamSpec

SPEC = StreamSpec("feed", ("a", "b"), "facts")
LOOK = Look("t1", {0: 0, 1: 0}, {0: 10, 1: 10})


@pytest.fixture
def feed(store: ControlStore) -> ControlStore:
    """A store with a stream of two tenants that was looked at once."""
    for tenant in SPEC.tenants:
        store.sources.register(tenant, "feed", 0.0)
    store.streams.add(SPEC, 1.0)
    store.streams.looked("feed", LOOK, 2.0)
    return store


def lease(store: ControlStore, partition: int = 0, holder: str = "w") -> int:
    return store.leases.acquire(partition_lease("feed", partition), holder, 10.0, 5.0)


def test_a_stream_is_registered_once_and_reads_what_it_was_registered_with(feed: ControlStore) -> None:
    assert feed.streams.add(SPEC, 9.0) == feed.streams.get("feed")
    with pytest.raises(Rejected, match="reads something else"):
        feed.streams.add(replace(SPEC, topic="other"), 9.0)
    assert [stream.spec for stream in feed.streams.list()] == [SPEC]
    with pytest.raises(NotFound):
        feed.streams.get("none")


@pytest.mark.parametrize("spec", [
    replace(SPEC, tenants=()), replace(SPEC, tenants=("a", "a")), replace(SPEC, topic=""),
    replace(SPEC, format="debezium"), replace(SPEC, table="entities"),
])  # fmt: skip
def test_a_stream_that_cannot_be_read_is_refused(store: ControlStore, spec: StreamSpec) -> None:
    with pytest.raises(Rejected):
        store.streams.add(spec, 0.0)


def test_a_stream_needs_its_source_in_each_tenant(store: ControlStore) -> None:
    store.sources.register("a", "feed", 0.0)
    with pytest.raises(NotFound):
        store.streams.add(SPEC, 0.0)
    store.sources.register("b", "feed", 0.0)
    store.sources.kill("b", "feed")
    with pytest.raises(Forbidden):
        store.streams.add(SPEC, 0.0)


def test_a_range_has_one_epoch_in_all_tenants_above_what_each_has_used(store: ControlStore) -> None:
    for tenant in SPEC.tenants:
        store.sources.register(tenant, "feed", 0.0)
    store.loads.epoch_of("b", "feed", "some file", 0.0)
    stream = store.streams.add(SPEC, 1.0)
    assert stream.timeline_epoch == 2
    store.streams.looked("feed", LOOK, 2.0)
    assert [part.epoch for part in store.streams.partitions("feed")] == [3, 3]
    assert {store.sources.get(tenant, "feed").next_epoch for tenant in SPEC.tenants} == {4}


def test_the_same_range_has_the_same_epoch_when_the_stream_is_added_again(feed: ControlStore) -> None:
    before = feed.streams.partitions("feed")
    feed.streams.remove("feed")
    feed.streams.add(SPEC, 3.0)
    feed.streams.looked("feed", LOOK, 4.0)
    assert feed.streams.partitions("feed") == before


def test_a_stream_that_is_added_again_has_a_newer_epoch_than_all_that_its_ranges_had(feed: ControlStore) -> None:
    """Else what is written to the topic from now on would count as older than what the last range said."""
    token, first = lease(feed), feed.streams.partitions("feed")[0].epoch
    feed.streams.commit("feed", Read(0, token, first, 0, 10))
    feed.streams.looked("feed", Look("t1", {0: 0, 1: 0}, {0: 6, 1: 10}), 3.0)
    newest = feed.streams.partitions("feed")[0].epoch
    feed.streams.remove("feed")
    feed.streams.add(SPEC, 4.0)
    feed.streams.looked("feed", LOOK, 5.0)
    assert {part.epoch for part in feed.streams.partitions("feed")} == {newest + 1}


def test_a_look_at_a_topic_made_again_forgets_the_old_partitions_and_says_so_once(feed: ControlStore) -> None:
    old = feed.streams.partitions("feed")[0].epoch
    again = Look("t2", {0: 0}, {0: 3})
    assert len(feed.streams.looked("feed", again, 3.0)) == 1
    assert feed.streams.looked("feed", again, 4.0) == ()
    (part,) = feed.streams.partitions("feed")
    assert (part.epoch, part.offset, part.end) == (old + 1, 0, 3)
    assert feed.streams.get("feed").topic_id == "t2"


def test_a_tail_that_is_lost_twice_at_one_offset_opens_an_epoch_each_time(feed: ControlStore) -> None:
    token = lease(feed)
    epochs = []
    for time in (3.0, 4.0):
        part = feed.streams.partitions("feed")[0]
        feed.streams.commit("feed", Read(0, token, part.epoch, part.offset, 10))
        feed.streams.looked("feed", Look("t1", {0: 0, 1: 0}, {0: 6, 1: 10}), time)
        epochs.append(feed.streams.partitions("feed")[0].epoch)
    assert epochs == [part.epoch + n for n in (0, 1)]
    assert feed.streams.partitions("feed")[1].epoch < epochs[0]


def test_a_stream_stops_at_what_was_removed_unread_and_goes_on_when_that_is_given_up(feed: ControlStore) -> None:
    now = Look("t1", {0: 4, 1: 0}, {0: 10, 1: 10})
    assert "offsets 0 to 3" in feed.streams.looked("feed", now, 3.0)[0]
    stopped = feed.streams.get("feed")
    assert (stopped.state, "offsets 0 to 3" in stopped.note) == ("stopped", True)
    assert feed.streams.looked("feed", now, 4.0) == ()
    assert feed.streams.skip_removed("feed", now).state == "active"
    assert [part.offset for part in feed.streams.partitions("feed")] == [4, 0]


def test_an_offset_moves_with_its_counts_under_the_lease(feed: ControlStore) -> None:
    token = lease(feed)
    epoch = feed.streams.partitions("feed")[0].epoch
    feed.streams.commit("feed", Read(0, token, epoch, 0, 5, carried=7, record_ms=99, acked=4, dead=1))
    feed.streams.commit("feed", Read(0, token, epoch, 5, 6, carried=7, acked=1))
    part = feed.streams.partitions("feed")[0]
    assert (part.offset, part.acked, part.dead, part.carried, part.record_ms) == (6, 5, 1, 7, 99)
    with pytest.raises(Conflict):
        feed.streams.commit("feed", Read(0, token, epoch, 5, 6))
    with pytest.raises(Fenced, match="another range"):
        feed.streams.commit("feed", Read(0, token, epoch + 1, 6, 7))
    assert feed.streams.partitions("feed")[0] == part


def test_a_reader_whose_lease_was_taken_over_commits_nothing(feed: ControlStore) -> None:
    old, epoch = lease(feed), feed.streams.partitions("feed")[0].epoch
    feed.leases.acquire(partition_lease("feed", 0), "other", 10.0, 16.0)
    with pytest.raises(Fenced):
        feed.streams.commit("feed", Read(0, old, epoch, 0, 5))
    assert feed.streams.partitions("feed")[0].offset == 0


def test_nothing_of_a_killed_source_is_committed(feed: ControlStore) -> None:
    token, epoch = lease(feed), feed.streams.partitions("feed")[0].epoch
    feed.sources.kill("b", "feed")
    with pytest.raises(Forbidden):
        feed.streams.commit("feed", Read(0, token, epoch, 0, 5))


def test_only_an_active_stream_is_told_what_it_waits_for(feed: ControlStore) -> None:
    feed.streams.tell("feed", "the broker is away")
    assert feed.streams.get("feed").note == "the broker is away"
    feed.streams.set_state("feed", "stopped", "records were removed")
    feed.streams.tell("feed", "")
    assert feed.streams.get("feed").note == "records were removed"


def test_what_would_be_refused_is_known_before_a_source_is_registered(feed: ControlStore) -> None:
    feed.streams.check(SPEC)
    feed.streams.check(replace(SPEC, name="new", tenants=("nobody-yet",)))
    for spec in (replace(SPEC, topic="other"), replace(SPEC, tenants=("a", "a"))):
        with pytest.raises(Rejected):
            feed.streams.check(spec)


def test_records_with_positions_of_their_own_have_one_epoch_as_long_as_the_topic_is_the_same(
    feed: ControlStore,
) -> None:
    first = feed.streams.partitions("feed")[0].epoch
    assert feed.streams.get("feed").timeline_epoch == first
    token = lease(feed)
    feed.streams.commit("feed", Read(0, token, first, 0, 10))
    feed.streams.looked("feed", Look("t1", {0: 0, 1: 0}, {0: 6, 1: 10}), 3.0)
    assert feed.streams.partitions("feed")[0].epoch > first
    assert feed.streams.get("feed").timeline_epoch == first
    feed.streams.looked("feed", Look("t2", {0: 0}, {0: 3}), 4.0)
    assert feed.streams.get("feed").timeline_epoch == feed.streams.partitions("feed")[0].epoch


def test_change_capture_has_one_timeline_whatever_becomes_of_its_topic(store: ControlStore) -> None:
    store.sources.register("a", "crm", 0.0)
    added = store.streams.add(StreamSpec("crm", ("a",), "t", "debezium", "claims"), 0.0)
    for topic in ("t1", "t2"):
        store.streams.looked("crm", Look(topic, {0: 0}, {0: 3}), 1.0)
        assert store.streams.get("crm").timeline_epoch == added.timeline_epoch


def test_the_leader_epoch_moves_with_the_offset(feed: ControlStore) -> None:
    token, epoch = lease(feed), feed.streams.partitions("feed")[0].epoch
    for before, known in ((0, 4), (1, -1), (2, 5)):
        feed.streams.commit("feed", Read(0, token, epoch, before, before + 1, leader_epoch=known))
        assert feed.streams.partitions("feed")[0].leader_epoch == known
    feed.streams.skip_removed("feed", Look("t1", {0: 7, 1: 0}, {0: 10, 1: 10}))
    assert (feed.streams.partitions("feed")[0].offset, feed.streams.partitions("feed")[0].leader_epoch) == (7, -1)


def test_what_stands_against_a_partition_is_kept_under_its_lease_until_the_stream_is_resumed(
    feed: ControlStore,
) -> None:
    token = lease(feed)
    feed.streams.tell_partition("feed", 0, token, "damaged")
    assert [part.note for part in feed.streams.partitions("feed")] == ["damaged", ""]
    with pytest.raises(Fenced):
        feed.streams.tell_partition("feed", 0, token + 1, "")
    feed.streams.set_state("feed", "paused")
    assert feed.streams.partitions("feed")[0].note == "damaged"
    feed.streams.set_state("feed", "active")
    assert feed.streams.partitions("feed")[0].note == ""


def test_an_update_without_the_row_before_is_known_until_one_comes_with_it(feed: ControlStore) -> None:
    token, epoch = lease(feed), feed.streams.partitions("feed")[0].epoch
    for before, partial, known in ((0, True, 1), (1, None, 1), (2, False, 0)):
        feed.streams.commit("feed", Read(0, token, epoch, before, before + 1, partial=partial))
        assert feed.streams.partitions("feed")[0].partial == known


def test_only_a_partition_that_has_stopped_is_let_go_on_behind_what_it_cannot_read(feed: ControlStore) -> None:
    token, epoch = lease(feed), feed.streams.partitions("feed")[0].epoch
    feed.streams.commit("feed", Read(0, token, epoch, 0, 3, leader_epoch=1))
    with pytest.raises(Rejected, match="has not stopped"):
        feed.streams.skip_to("feed", 0, 5)
    feed.streams.tell_partition("feed", 0, token, "damaged")
    for offset in (2, 3, 11):
        with pytest.raises(Rejected, match="is not between them"):
            feed.streams.skip_to("feed", 0, offset)
    with pytest.raises(NotFound):
        feed.streams.skip_to("feed", 7, 5)
    feed.streams.skip_to("feed", 0, 5)
    part = feed.streams.partitions("feed")[0]
    assert (part.offset, part.note, part.leader_epoch, part.epoch) == (5, "", -1, epoch)
    with pytest.raises(Conflict):
        feed.streams.commit("feed", Read(0, token, epoch, 3, 4))
