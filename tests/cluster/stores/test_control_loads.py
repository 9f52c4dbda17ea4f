"""Loads: a digest has one epoch for ever, and a load goes on where it was committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import Conflict, NotFound, Rejected
from cluster.stores.control import ControlStore, open_control
from tests.cluster.stores.processes import in_processes

T, S = "tenant-1", "feed"


def take_epochs(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    taken = {f"digest-{n}": store.loads.epoch_of(T, S, f"digest-{n}", 0.0) for n in range(20)}
    taken |= {f"own-{worker}-{n}": store.loads.epoch_of(T, S, f"own-{worker}-{n}", 0.0) for n in range(5)}
    Path(out, str(worker)).write_text(json.dumps(taken))
    store.close()


def test_a_digest_has_one_epoch_for_ever_in_every_process(store: ControlStore, url: str, tmp_path: Path) -> None:
    store.sources.register(T, S, 0.0)
    in_processes(3, take_epochs, url, str(tmp_path))
    seen = [json.loads((tmp_path / str(n)).read_text()) for n in range(3)]
    everything: dict[str, int] = {}
    for taken in seen:
        for digest, epoch in taken.items():
            assert everything.setdefault(digest, epoch) == epoch
    assert sorted(everything.values()) == list(range(1, 36))
    assert store.sources.get(T, S).next_epoch == 36


def test_a_load_goes_on_where_it_was_committed(store: ControlStore) -> None:
    store.sources.register(T, S, 0.0)
    load = store.loads.start(T, S, "digest", 1.0, label="a.csv", mapping={"id": "name"})
    assert (load.state, load.epoch, load.mapping) == ("running", 1, {"id": "name"})
    assert store.loads.start(T, S, "digest", 2.0) == load
    store.loads.commit(T, load.id, 0, 0, 100, acked=9, dead=1)
    store.loads.commit(T, load.id, 1, 0, 50, acked=5)
    store.loads.commit(T, load.id, 0, 100, 130, acked=3)
    with pytest.raises(Conflict):
        store.loads.commit(T, load.id, 0, 100, 130, acked=3)
    with pytest.raises(Rejected):
        store.loads.commit(T, load.id, 0, 130, 130)
    assert store.loads.positions(T, load.id) == {0: 130, 1: 50}
    store.loads.record_outcomes(T, load.id, applied=10, duplicate=6, stale=1)
    store.loads.end(T, load.id, "done", 3.0)
    ended = store.loads.get(T, load.id)
    assert (ended.acked, ended.dead, ended.applied, ended.duplicate, ended.stale) == (17, 1, 10, 6, 1)
    assert (ended.state, ended.ended) == ("done", 3.0)
    with pytest.raises(Rejected, match="ended"):
        store.loads.commit(T, load.id, 0, 130, 140)
    again = store.loads.start(T, S, "digest", 4.0)
    assert again.id != load.id
    assert again.epoch == load.epoch
    store.loads.end(T, load.id, "undone", 5.0)
    with pytest.raises(Rejected, match="undone"):
        store.loads.end(T, load.id, "done", 6.0)
    assert [found.id for found in store.loads.list(T)] == [again.id, load.id]
    with pytest.raises(NotFound):
        store.loads.get("tenant-2", load.id)


@pytest.mark.parametrize("page", [1, 2, 5, 100])
def test_every_load_of_a_tenant_comes_once_however_they_are_read(store: ControlStore, page: int) -> None:
    started: dict[str, set[str]] = {}
    for tenant in ("t", "u"):
        store.sources.register(tenant, "s", 0.0)
        started[tenant] = {store.loads.start(tenant, "s", f"digest-{n}", 0.0).id for n in range(5)}
    found = [load.id for load in store.loads.every("t", page)]
    assert len(found) == 5
    assert set(found) == started["t"]
    assert list(store.loads.every("nobody", page)) == []
