"""Partitions are shared out evenly, and stay where they are as far as that goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.stream_shares import Part, shared_out

PARTS = st.sets(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 20)), max_size=40)


@given(PARTS, st.integers(1, 8))
def test_each_partition_has_one_worker_and_no_worker_more_than_its_share(parts: set[Part], count: int) -> None:
    shares = shared_out(parts, [f"w{n}" for n in range(count)])
    assert sorted(part for mine in shares.values() for part in mine) == sorted(parts)
    assert all(len(mine) <= -(-len(parts) // count) for mine in shares.values())


def test_without_workers_nothing_is_shared_out() -> None:
    assert shared_out([("a", 0)], []) == {}


def test_a_worker_more_takes_its_share_and_little_else_moves() -> None:
    parts = [("a", n) for n in range(64)]
    before, after = (shared_out(parts, [f"w{n}" for n in range(count)]) for count in (4, 5))
    moved = sum(len(after[f"w{n}"] - before[f"w{n}"]) for n in range(4))
    assert len(after["w4"]) >= 8
    assert moved <= 12
