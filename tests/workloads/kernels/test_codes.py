"""Columns of few values: equal to what numpy says, and nothing is read outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.kernels.codes import NO_VALUE, recoded, used_codes, values_of

CODES = st.lists(st.integers(0, 9), max_size=40)
KINDS = st.sampled_from([np.uint8, np.uint16, np.uint32, np.int32])


@given(CODES, KINDS)
def test_used_codes_are_the_distinct_ones(codes: list[int], kind: type[np.integer]) -> None:
    assert used_codes(np.array(codes, kind), 10).tolist() == sorted(set(codes))


@given(CODES, KINDS)
def test_each_row_is_recoded(codes: list[int], kind: type[np.integer]) -> None:
    place = np.arange(10, dtype=np.uint32)[::-1].copy()
    assert recoded(np.array(codes, kind), place).tolist() == [9 - code for code in codes]


@given(CODES)
def test_each_code_has_the_value_of_its_rows(codes: list[int]) -> None:
    values = np.array([code * 7 for code in codes], np.uint16)
    expected = [code * 7 if code in codes else NO_VALUE for code in range(10)]
    assert values_of(np.array(codes, np.int64), values, 10).tolist() == expected


def test_a_code_outside_is_refused() -> None:
    codes = np.array([0, 3], np.uint32)
    with pytest.raises(ValueError, match="outside"):
        used_codes(codes, 3)
    with pytest.raises(ValueError, match="outside"):
        recoded(codes, np.zeros(3, np.uint32))
    for code in (3, -1):
        with pytest.raises(ValueError, match="outside"):
            values_of(np.array([0, code], np.int64), np.zeros(2, np.uint16), 3)
