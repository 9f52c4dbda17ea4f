"""Runs of overlays count up, and pointers only advance."""

from __future__ import annotations

import pytest

from cluster.errors import Conflict, NotFound, Rejected
from cluster.stores.control import ControlStore

T = "tenant-1"


def test_runs_count_up_per_overlay_and_tenant(store: ControlStore) -> None:
    assert [store.runs.start(T, "pagerank", "s1", float(n)).run for n in range(3)] == [1, 2, 3]
    assert store.runs.start(T, "louvain", "s1", 5.0).run == 1
    assert store.runs.start("tenant-2", "pagerank", "s1", 5.0).run == 1
    done = store.runs.finish(T, "pagerank", 2, "published", 9.0, {"overlap": 0.9})
    assert (done.state, done.gate, done.ended) == ("published", {"overlap": 0.9}, 9.0)
    assert store.runs.finish(T, "pagerank", 2, "published", 10.0) == done
    with pytest.raises(Conflict):
        store.runs.finish(T, "pagerank", 2, "failed", 10.0)
    with pytest.raises(NotFound):
        store.runs.finish(T, "pagerank", 9, "failed", 10.0)
    store.runs.finish(T, "pagerank", 3, "gated", 9.0)
    assert store.runs.latest(T, "pagerank") == done
    assert store.runs.latest(T, "louvain") is None
    assert [run.run for run in store.runs.list(T, "pagerank")] == [3, 2, 1]


def test_a_pointer_only_advances(store: ControlStore) -> None:
    assert store.pointers.get("snapshot") is None
    store.pointers.advance("snapshot", 0, 5, "m5", 1.0)
    with pytest.raises(Conflict):
        store.pointers.advance("snapshot", 0, 6, "m6", 2.0)
    with pytest.raises(Rejected):
        store.pointers.advance("snapshot", 5, 5, "m5b", 2.0)
    pointer = store.pointers.advance("snapshot", 5, 9, "m9", 2.0)
    assert store.pointers.get("snapshot") == pointer
