"""May a new ranking replace the one of the last run? A pure decision from both lists.

    decision = stability_gate(result.converged, previous, current, StabilityThresholds())
    if not decision.passed: keep the old values and show decision.reason

Lists hold keys, best first, each at most once. They are compared down to the depth of the shorter one.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cluster.errors import Rejected

RBO_PERSISTENCE = 0.9
"""The first ten ranks then carry some 86% of the weight (Webber et al., section 4.4)."""


@dataclass(frozen=True, slots=True)
class StabilityThresholds:
    """The least that passes. min_overlap, min_rbo: 0..1. min_kendall: -1..1, over the keys that both lists have."""

    min_overlap: float = 0.5
    min_rbo: float = 0.5
    min_kendall: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.min_overlap <= 1 and 0 <= self.min_rbo <= 1 and -1 <= self.min_kendall <= 1):
            raise Rejected("stability thresholds: overlap and rbo are within 0..1, kendall within -1..1")


@dataclass(frozen=True, slots=True)
class RankStability:
    """How alike two rankings are: 1 is equal in each measure. depth: how many ranks were compared.

    overlap: share of keys in common; rbo: rank-biased overlap, early ranks count most; kendall: tau of the order of
    the common keys (1 if fewer than two).
    """

    depth: int
    overlap: float
    rbo: float
    kendall: float


@dataclass(frozen=True, slots=True)
class GateDecision:
    """`reason` says why in words for an operator; `stability` is None where there was nothing to compare."""

    passed: bool
    reason: str
    stability: RankStability | None


def stability_gate(
    converged: bool, previous: Sequence[Hashable] | None, current: Sequence[Hashable], thresholds: StabilityThresholds
) -> GateDecision:
    """Decide. A run that did not converge never passes; a first run (previous None or empty) passes if it converged."""
    if not converged:
        return GateDecision(False, "the run did not converge: raise max_iter or tol", None)
    if not previous:
        return GateDecision(True, "first ranking", None)
    if not current:
        return GateDecision(False, f"the ranking is empty, the last one had {len(previous)} entries", None)
    found = rank_stability(previous, current)
    low = [
        f"{name} {value:.3f} is below {least:.3f}"
        for name, value, least in (
            ("overlap", found.overlap, thresholds.min_overlap),
            ("rbo", found.rbo, thresholds.min_rbo),
            ("kendall", found.kendall, thresholds.min_kendall),
        )
        if value < least
    ]
    if low:
        return GateDecision(False, f"unlike the last ranking in its first {found.depth}: {'; '.join(low)}", found)
    return GateDecision(True, f"stable in its first {found.depth}", found)


def rank_stability(previous: Sequence[Hashable], current: Sequence[Hashable]) -> RankStability:
    """Compare two rankings that both have entries; symmetric. Raises ValueError for an empty one or a repeated key."""
    depth = min(len(previous), len(current))
    old, new = list(previous[:depth]), list(current[:depth])
    if depth == 0 or len(set(old)) != depth or len(set(new)) != depth:
        raise ValueError("rankings must have entries, none of them twice")
    rank = {key: at for at, key in enumerate(new)}
    common = [rank[key] for key in old if key in rank]
    return RankStability(depth, len(common) / depth, rank_biased_overlap(old, new), kendall_tau(common))


def kendall_tau(ranks: Sequence[int]) -> float:
    """Kendall's tau of distinct ranks against their positions: 1 in order, -1 reversed; 1 for fewer than two."""
    if len(ranks) < 2:
        return 1.0
    seen: list[int] = []
    discordant = 0
    for rank in ranks:
        discordant += len(seen) - bisect(seen, rank)
        insort(seen, rank)
    return 1.0 - 4.0 * discordant / (len(ranks) * (len(ranks) - 1))


def rank_biased_overlap(
    old: Sequence[Hashable], new: Sequence[Hashable], persistence: float = RBO_PERSISTENCE
) -> float:
    """Rank-biased overlap of two equally long lists, extrapolated beyond their end; 0 (disjoint) to 1 (equal).

    Source: Webber, Moffat, Zobel 2010, doi:10.1145/1852102.1852106, equation 30.
    """
    seen_old: set[Hashable] = set()
    seen_new: set[Hashable] = set()
    shared, weighted, weight = 0, 0.0, 1.0
    for depth, (a, b) in enumerate(zip(old, new, strict=True), start=1):
        shared += (a == b) + (a in seen_new) + (b in seen_old)
        seen_old.add(a)
        seen_new.add(b)
        weight *= persistence
        weighted += shared / depth * weight
    return shared / len(old) * weight + (1 - persistence) / persistence * weighted
