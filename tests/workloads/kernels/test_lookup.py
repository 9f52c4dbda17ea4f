"""Rows by a hash: each is found, others are not, and equal hashes are said."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workloads.kernels.lookup import lookup_table, rows_of

NEAR = st.integers(0, 40)
HASHES = st.lists(NEAR | st.integers(0, 2**64 - 1) | NEAR.map(lambda low: 2**64 - 1 - low), max_size=60, unique=True)


@given(HASHES, HASHES)
def test_each_row_is_found_by_its_hash_and_no_other(have: list[int], others: list[int]) -> None:
    hashes = np.array(have, np.uint64)
    table = lookup_table(hashes)
    assert table is not None
    asked = np.array([*have, *others], np.uint64)
    expected = [have.index(one) if one in have else -1 for one in asked.tolist()]
    assert rows_of(table, hashes, asked).tolist() == expected


@given(HASHES.filter(bool), st.data())
def test_two_rows_of_one_hash_have_no_table(have: list[int], data: st.DataObject) -> None:
    twice = [*have, data.draw(st.sampled_from(have))]
    assert lookup_table(np.array(twice, np.uint64)) is None
