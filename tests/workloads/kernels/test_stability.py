"""The gate before a ranking is written back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from cluster.errors import Rejected
from workloads.kernels.stability import (
    StabilityThresholds,
    kendall_tau,
    rank_biased_overlap,
    rank_stability,
    stability_gate,
)

DEFAULT = StabilityThresholds()
RANKING = st.permutations(range(12)).flatmap(lambda order: st.integers(1, 12).map(lambda size: order[:size]))


def test_a_run_that_did_not_converge_never_passes() -> None:
    earlier: tuple[list[str] | None, ...] = (None, [], ["a", "b"])
    for previous in earlier:
        decision = stability_gate(False, previous, ["a", "b"], DEFAULT)
        assert not decision.passed
        assert "converge" in decision.reason


def test_a_first_run_passes() -> None:
    none: tuple[list[str] | None, ...] = (None, [])
    for previous in none:
        decision = stability_gate(True, previous, ["a"], DEFAULT)
        assert decision.passed
        assert decision.stability is None
    assert stability_gate(True, None, [], DEFAULT).passed


def test_an_empty_ranking_does_not_replace_one() -> None:
    decision = stability_gate(True, ["a"], [], DEFAULT)
    assert not decision.passed
    assert "empty" in decision.reason


def test_equal_passes_and_foreign_does_not() -> None:
    old = [f"v{at}" for at in range(10)]
    strict = StabilityThresholds(1.0, 1.0, 1.0)
    assert stability_gate(True, old, old, strict).passed
    foreign = stability_gate(True, old, [f"w{at}" for at in range(10)], DEFAULT)
    assert not foreign.passed
    assert "overlap 0.000 is below 0.500" in foreign.reason
    reversed_order = stability_gate(True, old, old[::-1], DEFAULT)
    assert not reversed_order.passed
    assert "kendall -1.000" in reversed_order.reason
    assert "overlap" not in reversed_order.reason


def test_small_changes_pass() -> None:
    decision = stability_gate(True, list("abcdefghij"), list("bacdefghkj"), DEFAULT)
    assert decision.passed
    assert decision.stability is not None
    assert decision.stability.overlap == 0.9


def test_a_longer_list_is_compared_to_the_depth_of_the_shorter() -> None:
    found = rank_stability(["a", "b", "c"], ["a", "b", "c", "d", "e"])
    assert (found.depth, found.overlap, found.kendall) == (3, 1.0, 1.0)
    assert found.rbo == pytest.approx(1.0)


@settings(deadline=None)
@given(RANKING, RANKING)
def test_measures_are_bounded_symmetric_and_one_only_for_equals(old: list[int], new: list[int]) -> None:
    there, back = rank_stability(old, new), rank_stability(new, old)
    assert there.overlap == back.overlap
    assert there.rbo == pytest.approx(back.rbo)
    assert there.kendall == pytest.approx(back.kendall)
    assert 0 <= there.overlap <= 1
    assert -1e-9 <= there.rbo <= 1 + 1e-9
    assert -1 <= there.kendall <= 1
    assert (there.rbo > 1 - 1e-9) == (old[: there.depth] == new[: there.depth])


@settings(deadline=None)
@given(st.permutations(range(9)))
def test_kendall_agrees_with_scipy(ranks: list[int]) -> None:
    assert kendall_tau(ranks) == pytest.approx(float(kendalltau(range(9), ranks).statistic))


@settings(deadline=None)
@given(st.permutations(range(7)), st.permutations(range(3, 10)))
def test_overlap_by_its_definition(old: list[int], new: list[int]) -> None:
    p, depth = 0.8, 7
    agreement = [len(set(old[:d]) & set(new[:d])) / d for d in range(1, depth + 1)]
    summed = sum(a * p**d for d, a in enumerate(agreement, start=1))
    assert rank_biased_overlap(old, new, p) == pytest.approx(agreement[-1] * p**depth + (1 - p) / p * summed)


def test_early_ranks_count_most() -> None:
    old = list(range(10))
    early, late = [90, *old[1:]], [*old[:-1], 90]
    assert rank_biased_overlap(old, early) < rank_biased_overlap(old, late)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        rank_stability(["a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="entries"):
        rank_stability([], ["a"])
    with pytest.raises(Rejected):
        StabilityThresholds(min_overlap=1.5)
