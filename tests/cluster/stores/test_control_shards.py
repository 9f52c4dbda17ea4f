"""Shards, and the line of shard maps: each follows its own parent, whoever races."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.errors import Conflict, Fenced, Rejected
from cluster.shard_map import add_shard, adopt_empty, initial, repartition
from cluster.stores.control import ControlStore, open_control
from tests.cluster.stores.processes import in_processes


def test_a_map_follows_its_own_parent_only_and_raises_the_epochs_it_touches(store: ControlStore) -> None:
    for name in "abc":
        store.shards.register(name, f"unix:/{name}", 0.0)
    assert store.shard_maps.current() is None
    first = initial(["a", "b"], 8)
    assert store.shard_maps.publish(0, first, 1.0, "up") == {"a": 1, "b": 1}
    assert store.shard_maps.current() == first
    only_from_a = adopt_empty(first, "c", first.buckets_of("a")[:10])
    assert store.shard_maps.publish(1, only_from_a, 2.0, "add") == {"a": 2, "c": 1}
    assert [shard.epoch for shard in store.shards.list()] == [2, 1, 1]
    with pytest.raises(Conflict):
        store.shard_maps.publish(1, add_shard(first, "c"), 3.0, "late")
    with pytest.raises(Conflict):
        store.shard_maps.publish(5, replace(only_from_a, revision=6), 3.0, "ahead")
    with pytest.raises(Rejected, match="follow"):
        store.shard_maps.publish(2, first, 3.0, "older")
    with pytest.raises(Rejected, match="register"):
        store.shard_maps.publish(2, add_shard(only_from_a, "stranger"), 3.0, "x")
    assert store.shard_maps.current() == only_from_a
    assert store.shards.raise_epoch("b") == 2


def test_another_number_of_partitions_moves_nobody(store: ControlStore) -> None:
    for name in "ab":
        store.shards.register(name, "", 0.0)
    first = initial(["a", "b"], 8)
    store.shard_maps.publish(0, first, 1.0, "up")
    changed = repartition(first, 12)
    assert store.shard_maps.publish(1, changed, 2.0, "up") == {}
    assert store.shard_maps.current() == changed
    assert [shard.epoch for shard in store.shards.list()] == [1, 1]
    both = replace(repartition(changed, 8), owners=("a", *first.owners[:-1]))
    with pytest.raises(Rejected, match="12 and 8 log partitions"):
        store.shard_maps.publish(2, both, 3.0, "both at once")


def publish_race(worker: int, url: str) -> None:
    store = open_control(url)
    won = 0
    while (current := store.shard_maps.current()) and current.revision < 12:
        try:
            target = current.shards[worker % len(current.shards)]
            owners = (target, *current.owners[1:])
            new = type(current)(current.revision + 1, current.partitions, owners)
            store.shard_maps.publish(current.revision, new, 0.0, f"worker-{worker}")
            won += 1
        except Conflict:
            continue
    store.close()


def test_racing_publishers_make_one_line_of_revisions(store: ControlStore, url: str) -> None:
    for name in "ab":
        store.shards.register(name, "", 0.0)
    store.shard_maps.publish(0, initial(["a", "b"], 8), 0.0, "up")
    in_processes(3, publish_race, url)
    with store.database.read() as connection:
        revisions = connection.exec_driver_sql("SELECT revision FROM shard_maps ORDER BY revision").scalars().all()
    assert list(revisions) == list(range(1, 13))


def test_a_map_that_was_planned_under_leases_is_refused_once_one_of_them_is_anothers(store: ControlStore) -> None:
    for shard in ("a", "b"):
        store.shards.register(shard, f"unix:///{shard}", 0.0)
    first = initial(["a"], 8)
    store.shard_maps.publish(0, first, 0.0, "up")
    assert store.leases.acquire("writer/a", "writer", 10.0, now=100.0) == 1
    held = {"writer/a": store.leases.acquire("writer/a", "shards add", 10.0, now=101.0, by_force=True)}
    with pytest.raises(Fenced):
        store.leases.renew("writer/a", 1, 10.0, now=101.0)
    with pytest.raises(Conflict):
        store.leases.acquire("writer/a", "writer", 10.0, now=102.0)
    store.leases.acquire("writer/a", "writer", 10.0, now=112.0)  # it ran out: the writer writes again
    with pytest.raises(Fenced):
        store.shard_maps.publish(1, add_shard(first, "b"), 112.0, "add", held)
    assert store.shard_maps.current() == first
    held = {"writer/a": store.leases.acquire("writer/a", "shards add", 10.0, now=113.0, by_force=True)}
    store.shard_maps.publish(1, add_shard(first, "b"), 113.0, "add", held)


def test_shards_have_roles_states_and_lag(store: ControlStore) -> None:
    store.shards.register("a", "unix:/1", 0.0, region="eu", weight=2.0)
    store.shards.register("r", "unix:/2", 0.0, role="replica", of="a")
    assert store.shards.register("a", "unix:/3", 1.0).uri == "unix:/3"
    store.shards.report_lag("r", 12, 0.5, 2.0)
    store.shards.set_state("r", "active", "draining", 3.0)
    with pytest.raises(Conflict):
        store.shards.set_state("r", "active", "down", 4.0)
    replica = store.shards.get("r")
    assert (replica.of, replica.state, replica.lag_records, replica.lag_seconds) == ("a", "draining", 12, 0.5)
    wrong: list[Callable[[], object]] = [
        lambda: store.shards.register("x", "", 0.0, role="replica"),
        lambda: store.shards.register("x", "", 0.0, of="a"),
        lambda: store.shards.register("x", "", 0.0, weight=0.0), lambda: store.shards.register("r", "", 0.0),
        lambda: store.shards.register("x", "", 0.0, role="replica", of="r"), lambda: store.shards.get("x"),
    ]  # fmt: skip
    for call in wrong:
        with pytest.raises(Rejected):
            call()
