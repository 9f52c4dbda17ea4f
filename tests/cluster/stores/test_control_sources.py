"""Sources: whose they are, what they may be called, and whether their records have positions."""

from __future__ import annotations

import pytest

from cluster.errors import BadRecord, Forbidden, NotFound, Rejected
from cluster.stores.control import ControlStore

T, S = "tenant-1", "feed"


def test_a_source_is_registered_once_per_tenant(store: ControlStore) -> None:
    first = store.sources.register(T, S, 5.0, owner="desk", priority=3)
    assert store.sources.register(T, S, 9.0, owner="other") == first
    other = store.sources.register("tenant-2", S, 6.0)
    assert (first.owner, first.priority, first.positions, first.state) == ("desk", 3, None, "active")
    assert (other.tenant, other.owner) == ("tenant-2", "")
    assert store.sources.list(T) == [first]
    with pytest.raises(NotFound):
        store.sources.get(T, "absent")


@pytest.mark.parametrize("name", ["overlay/pagerank", "system/x", "overlay/"])
def test_reserved_names_are_refused_from_outside(store: ControlStore, name: str) -> None:
    with pytest.raises(Forbidden):
        store.sources.register(T, name, 0.0)
    assert store.sources.register(T, name, 0.0, ours=True).name == name
    with pytest.raises(Forbidden):
        store.sources.register(T, "feed", 0.0, ours=True)


@pytest.mark.parametrize("name", ["", " ", "a b", "/x", "a" * 256, "a\n", "é", "a`b"])
def test_malformed_names_are_refused(store: ControlStore, name: str) -> None:
    with pytest.raises(Rejected):
        store.sources.register(T, name, 0.0)


def test_a_killed_source_writes_nothing_more(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    store.sources.kill(T, S)
    store.sources.kill(T, S)
    for call in (
        lambda: store.acceptance.accept(T, S, None, "h", 1, 0.0), lambda: store.loads.start(T, S, "d", 0.0),
        lambda: store.sources.own_or_assigned(T, S, "own"),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            call()


def test_a_source_has_positions_always_or_never(store: ControlStore) -> None:
    store.sources.register(T, "own", 0.0)
    store.sources.register(T, "none", 0.0)
    store.sources.own_or_assigned(T, "own", "own")
    store.sources.own_or_assigned(T, "own", "own")
    store.acceptance.accept(T, "none", None, "h", 1, 0.0)
    assert store.sources.get(T, "none").positions == "assigned"
    with pytest.raises(BadRecord) as raised:
        store.sources.own_or_assigned(T, "none", "own")
    assert raised.value.error_class == "schema"
    with pytest.raises(BadRecord):
        store.acceptance.accept(T, "own", None, "h", 1, 0.0)
