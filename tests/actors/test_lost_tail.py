"""What is lost, and who has it: a pure judgement."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lost_tail import Damage, Held, judge, lost_since
from cluster.stores.log import LogLostTail, Seam

OWNERS = {0: ["a"], 1: ["a", "b"]}


def judged(
    ends: tuple[int, int], lake: tuple[int, int] = (0, 0), a: tuple[int, int] = (0, 0), b: int = 0,
    reported: tuple[int, int] = (0, 0), whole: str = "ab",
) -> Damage:  # fmt: skip
    shards: Mapping[str, Mapping[int, int]] = {"a": dict(enumerate(a)), "b": {1: b}}
    numbers = (dict(enumerate(one)) for one in (ends, lake))
    return judge(Held(*numbers, shards, frozenset(whole), dict(enumerate(reported))), OWNERS)


def test_a_log_that_has_all_is_whole() -> None:
    found = judged((5, 7), lake=(5, 3), a=(4, 7), b=7, reported=(5, 7))
    assert found.none
    assert found.seams == {0: Seam(5, 5, 5), 1: Seam(7, 7, 7)}
    assert (found.lost, found.lost_text) == ({}, "")
    found.check_tails()


def test_what_the_lake_has_is_there_number_for_number() -> None:
    found = judged((5, 7), lake=(9, 7), a=(6, 7), b=7)
    assert not found.none
    assert found.seams == {0: Seam(5, 9, 9), 1: Seam(7, 7, 7)}
    assert not found.lost
    with pytest.raises(LogLostTail, match="partition 0 ends at 5, but entries up to 9"):
        found.check_tails()


def test_numbers_that_only_shards_have_are_not_given_again() -> None:
    found = judged((5, 7), lake=(6, 7), a=(9, 12), b=12)
    assert found.seams == {0: Seam(5, 6, 10, 9), 1: Seam(7, 7, 13, 12)}
    assert not found.lost
    assert [n for n in range(15) if found.seams[0].is_lost(n)] == [7, 8, 9]


@pytest.mark.parametrize(
    ("held", "lost"),
    [
        ({"a": (9, 12), "b": 10}, "1:11-12"),  # a has its part of entries 11 and 12, and b's is nowhere
        ({"a": (9, 7), "b": 7, "reported": (11, 0)}, "0:10-11"),
        ({"a": (9, 12), "b": 12, "whole": "b"}, "0:6-9,1:8-12"),  # a holds a part of its buckets
        ({"lake": (20, 0), "reported": (21, 9)}, "0:21-21,1:8-9"),
    ],
)
def test_what_nobody_holds_is_named(held: dict[str, object], lost: str) -> None:
    assert judged((5, 7), **held).lost_text == lost  # type: ignore[arg-type]


def test_a_shard_that_comes_back_older_holds_less_than_it_did() -> None:
    seams = judged((5, 7), lake=(6, 7), a=(9, 12), b=12).seams
    assert lost_since(seams, {"a": {0: 9, 1: 12}, "b": {1: 12}}, OWNERS) == {}
    assert lost_since(seams, {"a": {0: 8, 1: 12}, "b": {1: 2}}, OWNERS) == {0: (9, 9), 1: (8, 12)}
    assert lost_since(seams, {"a": {}, "b": {}}, OWNERS) == {0: (7, 9), 1: (8, 12)}
    in_lake = judged((5, 7), lake=(9, 12), a=(9, 12), b=12).seams
    assert lost_since(in_lake, {"a": {}, "b": {}}, OWNERS) == {}
    accepted = judged((5, 7), a=(9, 12), b=10, reported=(9, 12)).seams
    assert lost_since(accepted, {"a": {0: 9, 1: 12}, "b": {1: 10}}, OWNERS) == {}


numbers = st.tuples(st.integers(0, 6), st.integers(0, 6))


@given(numbers, numbers, numbers, st.integers(0, 6), numbers)
def test_no_number_that_anybody_has_is_given_again(
    ends: tuple[int, int], lake: tuple[int, int], a: tuple[int, int], b: int, reported: tuple[int, int]
) -> None:
    found = judged(ends, lake, a, b, reported)
    for partition, seam in found.seams.items():
        others = [lake[partition], a[partition], reported[partition], b if partition else 0]
        assert seam.end <= seam.kept <= seam.resumed
        assert all(seam.resumed >= one for one in others)
        assert all(not seam.is_lost(at) or at > lake[partition] for at in range(10))
        taken = [at for at in (a[partition], b if partition else 0) if at > seam.kept]
        assert all(seam.is_lost(at) for at in taken), "who has taken lost entries can be told from who has not"
        first, last = found.lost.get(partition, (0, -1))
        assert all(not seam.end >= at for at in range(first, last + 1))
    assert found.none == all(ends[p] >= max(lake[p], a[p], reported[p], b if p else 0) for p in OWNERS)
