"""Who takes buckets over must not have read past what the giver has not read yet."""

from __future__ import annotations

from actors.ownership import behind
from cluster.stores.graph import Cursor


def cursors(**at: int) -> dict[int, Cursor]:
    return {int(p[1:]): Cursor(int(p[1:]), number, 1, 0, 0, 0, 0) for p, number in at.items()}


def test_a_giver_that_is_behind_in_a_shared_partition_is_told() -> None:
    assert behind(cursors(p0=5, p1=7), cursors(p0=5, p1=8)) == [1]
    assert behind(cursors(p0=6, p1=8), cursors(p0=5, p1=8)) == []


def test_partitions_of_one_of_them_alone_do_not_matter() -> None:
    assert behind(cursors(p0=1), cursors(p1=9)) == []
