"""The shard map as a value: shares, stability, wholeness of partitions, packing."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Corrupt, Rejected
from cluster.ids import BUCKETS
from cluster.shard_map import (
    ShardMap,
    add_shard,
    adopt_empty,
    drain,
    initial,
    pack,
    partition_of,
    plan,
    repartition,
    unpack,
)

PARTITIONS = st.sampled_from([1, 2, 3, 7, 8, 16, 64, 4096])
COUNTS = st.integers(1, 12)
WEIGHT = st.floats(0.25, 4.0)


def names(count: int) -> list[str]:
    return [f"shard-{n}" for n in range(count)]


def grown(count: int, partitions: int) -> ShardMap:
    shard_map = initial(names(1), partitions)
    for name in names(count)[1:]:
        shard_map = add_shard(shard_map, name)
    return shard_map


@given(COUNTS, PARTITIONS)
def test_the_first_map_is_even_and_keeps_partitions_whole(count: int, partitions: int) -> None:
    shard_map = initial(names(count), partitions)
    sizes = Counter(shard_map.owners)
    assert set(sizes) == set(names(count))
    assert max(sizes.values()) - min(sizes.values()) <= -(-BUCKETS // partitions)
    if count <= partitions:
        assert all(len(shard_map.shards_of_partition(p)) == 1 for p in range(partitions))


@settings(deadline=None)
@given(COUNTS, PARTITIONS, st.booleans())
def test_adding_the_nth_shard_moves_about_one_nth_and_nothing_else(
    count: int, partitions: int, by_adding: bool
) -> None:
    old = grown(count, partitions) if by_adding else initial(names(count), partitions)
    new = add_shard(old, "new")
    moves = plan(old, new)
    share = BUCKETS / (count + 1)
    assert {move.target for move in moves} == {"new"}, "no bucket moves between the others"
    assert abs(len(moves) - share) <= BUCKETS / partitions / 2 + 1
    assert new.revision == old.revision + 1
    assert set(new.shards) == {*old.shards, "new"}, "nobody loses all"
    assert add_shard(old, "new") == new


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(WEIGHT, min_size=7, max_size=7), st.sampled_from([64, 256, 4096]))
def test_a_share_follows_the_weight(count: int, given_weights: list[float], partitions: int) -> None:
    weights = dict(zip([*names(count), "new"], given_weights, strict=False))
    new = add_shard(initial(names(count), partitions), "new", weights)
    share = BUCKETS * weights["new"] / sum(weights.values())
    assert abs(len(new.buckets_of("new")) - share) <= BUCKETS / partitions / 2 + 1


@given(st.integers(1, 7))
def test_whole_partitions_move_while_there_are_enough(count: int) -> None:
    new = add_shard(initial(names(count), 8), "new")
    assert all(len(new.shards_of_partition(p)) == 1 for p in range(8))


def test_more_shards_than_partitions_split_a_partition_evenly() -> None:
    new = add_shard(initial(names(8), 8), "new")
    sizes = Counter(new.owners)
    assert max(sizes.values()) - min(sizes.values()) <= 1


@settings(deadline=None)
@given(COUNTS, st.sampled_from([4, 8, 64]), st.sets(st.integers(0, BUCKETS - 1), max_size=300))
def test_only_empty_buckets_are_adopted(count: int, partitions: int, empty: set[int]) -> None:
    old = initial(names(count), partitions)
    moved = {move.bucket for move in plan(old, adopt_empty(old, "new", empty))}
    assert moved <= empty
    assert len(moved) <= round(BUCKETS / (count + 1))
    assert bool(moved) == any(len(old.buckets_of(old.owners[b])) > BUCKETS / (count + 1) for b in empty)


@given(st.integers(2, 8))
def test_an_empty_system_gives_a_new_shard_its_full_share(count: int) -> None:
    new = adopt_empty(initial(names(count), 8), "new", range(BUCKETS))
    assert abs(len(new.buckets_of("new")) - BUCKETS / (count + 1)) <= 1


@settings(deadline=None)
@given(st.integers(2, 9), PARTITIONS, st.data())
def test_draining_moves_the_shards_own_buckets_only(count: int, partitions: int, data: st.DataObject) -> None:
    old = initial(names(count), partitions)
    gone = data.draw(st.sampled_from(names(count)))
    new = drain(old, gone)
    moves = plan(old, new)
    assert {move.source for move in moves} == {gone}
    assert len(moves) == len(old.buckets_of(gone))
    assert gone not in new.shards
    if count <= partitions:
        assert all(len(new.shards_of_partition(p)) == 1 for p in range(partitions))


@settings(deadline=None)
@given(COUNTS, PARTITIONS, st.integers(0, 5))
def test_packing_loses_nothing(count: int, partitions: int, extra: int) -> None:
    shard_map = initial(names(count), partitions)
    for n in range(extra):
        shard_map = add_shard(shard_map, f"extra-{n}")
    assert unpack(pack(shard_map)) == shard_map


def test_a_map_of_whole_partitions_packs_small() -> None:
    assert len(pack(initial(names(8), 8))) < 300


def packed(partitions: int, runs: str) -> str:
    return f'{{"revision":1,"partitions":{partitions},"shards":["a"],"runs":{runs}}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        packed(8, "[[0,4095]]"),
        packed(8, "[[1,4096]]"),
        packed(0, "[[0,4096]]"),
        packed(8, "[[0]]"),
    ],
)
def test_a_damaged_map_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt):
        unpack(text)


def test_what_cannot_be_is_refused() -> None:
    one = initial(["a"], 8)
    for call in (
        lambda: initial([], 8), lambda: initial(["a", "a"], 8), lambda: add_shard(one, "a"), lambda: drain(one, "a"),
        lambda: add_shard(one, "b", {"b": 0.0}), lambda: drain(initial(["a", "b"], 8), "c"),
        lambda: plan(one, initial(["a"], 4)), lambda: add_shard(one, ""),
    ):  # fmt: skip
        with pytest.raises(Rejected):
            call()
    with pytest.raises(ValueError, match="4096 owners"):
        ShardMap(1, 8, ("a",) * 10)


def test_partitions_and_shards_name_each_other() -> None:
    shard_map = add_shard(initial(names(2), 8), "new")
    for shard in shard_map.shards:
        for partition in shard_map.partitions_of(shard):
            assert shard in shard_map.shards_of_partition(partition)
        assert {partition_of(b, 8) for b in shard_map.buckets_of(shard)} == set(shard_map.partitions_of(shard))


NUMBERS = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 100]), min_size=1, max_size=5).map(
    lambda drawn: [number for number, _ in groupby(drawn)]
)


def numbered(shards: int, numbers: list[int]) -> ShardMap:
    """The map of a log that had these numbers of partitions, one after the other."""
    shard_map = initial(names(shards), numbers[0])
    for number in numbers[1:]:
        shard_map = repartition(shard_map, number)
    return shard_map


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), NUMBERS)
def test_a_shard_reads_every_partition_that_its_buckets_were_ever_appended_to(count: int, numbers: list[int]) -> None:
    shard_map = numbered(count, numbers)
    assert shard_map.owners == initial(names(count), numbers[0]).owners, "nobody's buckets change"
    assert unpack(pack(shard_map)) == shard_map
    assert (shard_map.partitions, shard_map.all_partitions) == (numbers[-1], max(numbers))
    for shard in shard_map.shards:
        ever = {partition_of(bucket, n) for bucket in shard_map.buckets_of(shard) for n in numbers}
        now = {partition_of(bucket, numbers[-1]) for bucket in shard_map.buckets_of(shard)}
        before = {partition_of(bucket, n) for bucket in shard_map.buckets_of(shard) for n in numbers[:-1]}
        assert set(shard_map.partitions_of(shard)) == ever
        assert set(shard_map.appended_for(shard)) == now
        assert set(shard_map.new_to(shard)) == (now - before if before else set())
        assert all(shard in shard_map.shards_of_partition(p) for p in ever)
    for partition in range(shard_map.all_partitions):
        owners = {s for s in shard_map.shards if partition in shard_map.partitions_of(s)}
        assert set(shard_map.shards_of_partition(partition)) == owners
    if count > 1:
        assert set(drain(shard_map, shard_map.shards[0]).earlier) == set(shard_map.earlier)
    assert add_shard(shard_map, "new").earlier == shard_map.earlier


@settings(deadline=None, max_examples=20)
@given(NUMBERS)
def test_all_records_of_a_thing_are_in_one_group(numbers: list[int]) -> None:
    shard_map = numbered(2, numbers)
    groups = shard_map.groups()
    assert sorted(p for group in groups for p in group) == list(range(max(numbers)))
    group_of = {p: group for group in groups for p in group}
    beside = [set(shard_map.partitions_beside(p)) for p in range(numbers[-1])]
    for bucket in range(BUCKETS):
        own = shard_map.partitions_of_bucket(bucket)
        assert set(own) == {partition_of(bucket, n) for n in numbers}
        assert len({group_of[p] for p in own}) == 1
        assert set(own) <= beside[partition_of(bucket, numbers[-1])]
    if len(set(numbers)) == 1:
        assert groups == [(p,) for p in range(numbers[0])]


def test_a_multiple_or_a_divisor_keeps_partitions_on_one_shard() -> None:
    for number in (4, 16, 64):
        changed = repartition(initial(names(2), 8), number)
        assert all(len(changed.shards_of_partition(p)) == 1 for p in range(changed.all_partitions))
        assert changed.new_to("shard-0") == tuple(p for p in range(8, number) if p % 2 == 0)
    assert repartition(initial(names(2), 8), 4).groups() == [(0, 4), (1, 5), (2, 6), (3, 7)]
    with pytest.raises(Rejected, match="8 partitions already"):
        repartition(initial(names(2), 8), 8)
