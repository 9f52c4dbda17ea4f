"""Schemas that a stream has met, as the control store keeps them: one is pinned for each name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.errors import Conflict
from cluster.stores.control import ControlStore
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import SeenSchema

PINNED = SeenSchema("k1", "Event", 1, "facts-value", 1, "pinned", "", 0, 5, 1.0)
FITS = replace(PINNED, key="k2", schema_id=2, version=2, state="seen", seen=2.0)
BREAKS = replace(PINNED, key="k3", schema_id=3, version=3, state="refused", note="breaks", seen=3.0)
OTHER = replace(PINNED, key="k4", schema_id=4, name="Other", seen=4.0)
BREACH = replace(PINNED, key="k1 required id", name="", schema_id=0, state="refused", seen=5.0)


@pytest.fixture
def feed(store: ControlStore) -> ControlStore:
    """A store with a stream that has met two schemas of one name and one of another."""
    store.sources.register("a", "feed", 0.0)
    store.streams.add(StreamSpec("feed", ("a",), "facts", schema="registry", subject="facts-value"), 0.0)
    for one in (PINNED, FITS, OTHER):
        assert store.stream_schemas.saw("feed", one)
    return store


def states(store: ControlStore) -> dict[str, str]:
    return {one.key: one.state for one in store.stream_schemas.list("feed")}


def test_what_was_met_is_kept_once_and_as_it_was_first(feed: ControlStore) -> None:
    assert not feed.stream_schemas.saw("feed", replace(FITS, state="refused", offset=99))
    assert feed.stream_schemas.list("feed") == [PINNED, FITS, OTHER]


def test_of_two_that_would_be_pinned_at_once_the_later_is_judged_again(feed: ControlStore) -> None:
    with pytest.raises(Conflict):
        feed.stream_schemas.saw("feed", replace(PINNED, key="k9", schema_id=9))
    assert "k9" not in states(feed)


def test_what_is_accepted_takes_the_place_of_what_was_pinned_and_fitted(feed: ControlStore) -> None:
    feed.stream_schemas.saw("feed", BREAKS)
    feed.stream_schemas.saw("feed", BREACH)
    assert {one.key for one in feed.stream_schemas.accept("feed")} == {"k3", BREACH.key}
    assert not feed.stream_schemas.accept("feed")
    assert states(feed) == {
        "k1": "former", "k2": "former", "k3": "pinned", "k4": "pinned", BREACH.key: "accepted",
    }  # fmt: skip


def test_what_was_refused_can_be_forgotten_and_judged_anew(feed: ControlStore) -> None:
    feed.stream_schemas.saw("feed", BREAKS)
    feed.stream_schemas.forget_refused("feed")
    assert states(feed) == {"k1": "pinned", "k2": "seen", "k4": "pinned"}
    assert feed.stream_schemas.saw("feed", BREAKS)


def test_a_schema_is_pinned_whatever_it_was(feed: ControlStore) -> None:
    feed.stream_schemas.pin("feed", replace(BREAKS, state="seen"))
    feed.stream_schemas.pin("feed", BREAKS)
    assert states(feed) == {"k1": "former", "k2": "former", "k3": "pinned", "k4": "pinned"}


def test_where_records_name_no_schema_one_alone_is_pinned_whatever_its_name(feed: ControlStore) -> None:
    feed.stream_schemas.pin("feed", replace(BREAKS, name="Renamed"), alone=True)
    assert states(feed) == {"k1": "former", "k2": "former", "k3": "pinned", "k4": "former"}


def test_where_its_first_record_was_is_said_once(feed: ControlStore) -> None:
    feed.stream_schemas.pin("feed", replace(BREAKS, partition=-1))
    for offset in (7, 9):
        feed.stream_schemas.met("feed", "k3", 1, offset, 6.0)
    (found,) = [one for one in feed.stream_schemas.list("feed") if one.key == "k3"]
    assert (found.partition, found.offset, found.seen) == (1, 7, 6.0)


def test_a_stream_that_is_removed_takes_them_with_it(feed: ControlStore) -> None:
    feed.streams.remove("feed")
    assert not states(feed)
