"""Orders by counting: equal to a stable sort, and nothing is read outside the keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.kernels.order import order_by, order_of, starts_of

EDGES = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.just(count), st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=60)
    )
)


@given(EDGES)
def test_it_is_the_stable_sort(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = case
    src, dst = (np.array([edge[end] for edge in edges], np.int64) for end in (0, 1))
    rows = range(len(edges))
    assert order_of(dst, count).tolist() == sorted(rows, key=lambda row: edges[row][1])
    assert order_by(src, dst, count).tolist() == sorted(rows, key=lambda row: edges[row])


@given(EDGES)
def test_starts_count_the_lesser_keys(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = case
    dst = [edge[1] for edge in edges]
    expected = [sum(key < vertex for key in dst) for vertex in range(count + 1)]
    assert starts_of(np.array(dst, np.int64), count).tolist() == expected


def test_no_rows_and_no_vertices_have_an_order() -> None:
    nothing = np.empty(0, np.int64)
    assert order_by(nothing, nothing, 0).tolist() == []
    assert starts_of(nothing, 0).tolist() == [0]


@pytest.mark.parametrize("key", [3, -1])
def test_a_key_outside_is_refused(key: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        order_of(np.array([0, key], np.int64), 3)
    with pytest.raises(ValueError, match="outside"):
        starts_of(np.array([0, key], np.int64), 3)
