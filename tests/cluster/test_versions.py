"""Version texts sort as (epoch, position) do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import versions
from cluster.errors import BadRecord, Corrupt

integers = st.integers(0, versions.MAX_INTEGER)
positions = st.lists(integers, min_size=1, max_size=versions.MAX_POSITION_PARTS).map(tuple)
pairs = st.tuples(integers, positions)


@given(pairs, pairs)
def test_texts_compare_as_pairs(a: tuple[int, tuple[int, ...]], b: tuple[int, tuple[int, ...]]) -> None:
    left, right = versions.encode(*a), versions.encode(*b)
    assert (left < right) == (a < b)
    assert (left == right) == (a == b)
    assert (f"{left}.0" < f"{right}.0") == (a < b)


@given(pairs)
def test_a_text_decodes_to_its_pair(pair: tuple[int, tuple[int, ...]]) -> None:
    text = versions.encode(*pair)
    assert versions.decode(text) == pair
    assert versions.epoch_of(f"{text}.abc") == pair[0]
    assert versions.epoch_text(f"{text}.abc") == versions.floor_of(pair[0])


@given(pairs, integers)
def test_a_floor_parts_epochs(pair: tuple[int, tuple[int, ...]], epoch: int) -> None:
    assert (versions.encode(*pair) < versions.floor_of(epoch)) == (pair[0] < epoch)


@pytest.mark.parametrize(("epoch", "position"), [(-1, [1]), (1, []), (1, [-1]), (1, [2**64]), (1, [0] * 9)])
def test_what_is_out_of_range_is_refused(epoch: int, position: list[int]) -> None:
    with pytest.raises(BadRecord):
        versions.encode(epoch, position)


@pytest.mark.parametrize("text", ["", "z1", "b1", "aZ", "1"])
def test_what_is_no_version_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt):
        versions.decode(text)
