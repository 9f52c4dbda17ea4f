"""The order of the best K."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Rejected
from workloads.kernels.topk import top_k

VALUES = st.lists(st.sampled_from([0.0, -0.0, 0.1, 0.5, 2.0, -1.0, float("inf")]), max_size=30)


@settings(deadline=None)
@given(VALUES, st.integers(0, 35))
def test_ties_go_to_the_lower_position(values: list[float], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda at: (-values[at], at))[:k]
    assert top_k(np.array(values, np.float64), k).tolist() == expected


@settings(deadline=None)
@given(VALUES, st.integers(0, 35), st.randoms(use_true_random=False))
def test_keys_make_it_independent_of_numbering(values: list[float], k: int, random: Random) -> None:
    keyed = [(value, f"key{at:03d}") for at, value in enumerate(values)]
    shuffled = list(keyed)
    random.shuffle(shuffled)

    def best(pairs: list[tuple[float, str]]) -> list[str]:
        keys = [key for _, key in pairs]
        return [keys[at] for at in top_k(np.array([v for v, _ in pairs], np.float64), k, keys)]

    assert best(keyed) == best(shuffled)
    assert best(keyed) == [key for _, key in sorted(keyed, key=lambda pair: (-pair[0], pair[1]))[:k]]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(Rejected, match="at least 0"):
        top_k(np.ones(2), -1)
    with pytest.raises(Rejected, match="not numbers"):
        top_k(np.array([1.0, np.nan]), 1)
    with pytest.raises(ValueError, match="keys"):
        top_k(np.ones(2), 1, ["a"])
