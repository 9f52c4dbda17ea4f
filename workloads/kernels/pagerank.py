"""PageRank by power iteration: each vertex pulls from its in-neighbours. Semantics are those of networkx.

One process:

    result = pagerank(build_csc(src, dst, n))

Several partition actors do the same with the pieces, bit for bit:

    inverse = inverse_weights(out_weights(csc)); ranks = 1/n everywhere; settled = settle(ranks, ranks, …)
    repeat until settled.residual < n * tol:
        pull_range(…, base_mass(settled.dangling, …), …) on each slice, into its part of the new ranks
        settled = settle(previous, ranks, …)

x' = damping * (P^T x + dangling(x) * p) + (1 - damping) * p, from x = 1/n; p is the personalisation (else 1/n),
dangling(x) the mass on vertices that nothing leaves. Parallel edges count each; weights scale an edge's share.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import Rejected
from workloads.kernels.compiled import compiled
from workloads.kernels.csr import (
    NO_WEIGHTS,
    Adjacency,
    Floats,
    Indices,
    Ints,
    VertexRange,
    frozen,
    out_weights,
    partition_by_edges,
)
from workloads.kernels.threads import Sweep, one_by_one, sweeper, usable_cores

BLOCK_VERTICES = 4096
"""Sums over all vertices are made in blocks of this size, then over blocks in order: the same bits for any division."""
RANGES_PER_THREAD = 8
"""More ranges than threads, so that a core that others slow down does fewer of them."""

SETTLE_PARTS = 16


@dataclass(frozen=True, slots=True)
class PageRankResult:
    """ranks: float64[n], their sum is 1. residual: L1 distance of the last two iterates. `converged` is False when
    max_iter came first: such ranks are an approximation, and the write-back gate refuses them."""

    ranks: Floats
    iterations: int
    converged: bool
    residual: float
    prepare_s: float
    solve_s: float


class Settled(NamedTuple):
    """What one iteration leaves: mass on dangling vertices, and the L1 distance from the iterate before."""

    dangling: float
    residual: float


def pagerank(
    csc: Adjacency,
    out_weight: Floats | None = None,
    *,
    damping: float = 0.85,
    tol: float = 1e-6,
    max_iter: int = 100,
    personalisation: Floats | None = None,
    threads: int | None = None,
) -> PageRankResult:
    """Iterate until the L1 change is below n * tol, or max_iter times; tol=0 does exactly max_iter iterations.

    out_weight: float64[n], counted here if not given; 0 marks a dangling vertex. personalisation: float64[n], not
    negative, sum above 0, need not be normalised. An empty graph has no ranks. Raises Rejected for settings,
    personalisation or weights out of bounds, ValueError for arrays that do not fit each other.
    """
    began = time.perf_counter()
    vertices = csc.vertices
    _check(csc, damping, tol, max_iter)
    teleport = teleport_vector(personalisation, vertices)
    if vertices == 0:
        return PageRankResult(np.empty(0), 0, True, 0.0, time.perf_counter() - began, 0.0)
    inverse = inverse_weights(out_weights(csc) if out_weight is None else out_weight)
    if inverse.shape != (vertices,):
        raise ValueError(f"out_weight needs {vertices} values, not {inverse.shape}")
    ranges = partition_by_edges(csc.offsets, _range_count(vertices, threads))
    prepared = time.perf_counter()
    with sweeper(threads) as sweep:
        run = _Iteration(csc, inverse, teleport, damping, ranges, sweep)
        iterations, settled = run.until(vertices * tol, max_iter)
    solved = time.perf_counter()
    converged = settled.residual < vertices * tol
    return PageRankResult(run.ranks, iterations, converged, settled.residual, prepared - began, solved - prepared)


def pull_range(
    offsets: Ints,
    indices: Indices,
    contribution: Floats,
    out: Floats,
    base: float,
    damping: float,
    *,
    weights: Floats | None = None,
    teleport: Floats | None = None,
) -> None:
    """One iteration for a range of m destinations: out[v] = base * teleport[v] + damping * sum of contributions.

    offsets: int64[m + 1], from any start; indices: the range's in-neighbours; contribution: float64[n] of the whole
    graph; out: float64[m], overwritten; teleport: float64[m] or None (then `base` alone). Releases the interpreter
    lock; idempotent. Each sum runs in one fixed order, so the bits do not depend on how vertices were divided.
    """
    _pull(
        frozen(offsets),
        frozen(indices),
        frozen(NO_WEIGHTS if weights is None else weights),
        frozen(contribution),
        frozen(NO_WEIGHTS if teleport is None else teleport),
        float(base),
        float(damping),
        out,
    )


def settle(
    previous: Floats, ranks: Floats, inverse: Floats, contribution: Floats, sweep: Sweep = one_by_one
) -> Settled:
    """Close an iteration: write contribution = ranks * inverse (float64[n], overwritten), return both sums.

    Over the whole graph's vectors, all float64[n]. Idempotent. sweep: spreads the work over threads.
    """
    blocks = -(-len(ranks) // BLOCK_VERTICES)
    sums = np.zeros((2, blocks))
    old, new, inv = frozen(previous), frozen(ranks), frozen(inverse)

    def close(part: VertexRange) -> None:
        _settle_blocks(old, new, inv, contribution, part.first, part.last, sums)

    parts = max(1, min(blocks, SETTLE_PARTS))
    bounds = [blocks * part // parts for part in range(parts + 1)]
    sweep(close, [VertexRange(first, last) for first, last in pairwise(bounds)])
    return Settled(_in_order(sums[0]), _in_order(sums[1]))


def inverse_weights(out_weight: Floats) -> Floats:
    """1 / out_weight, and 0 for dangling vertices: float64[n]. Raises Rejected where that is not finite."""
    inverse = np.zeros(len(out_weight))
    with np.errstate(over="ignore"):
        np.divide(1.0, out_weight, out=inverse, where=out_weight > 0)
    if not np.isfinite(inverse).all():
        raise Rejected("edge weights are too small to divide by: scale them up")
    return inverse


def teleport_vector(personalisation: Floats | None, vertices: int) -> Floats | None:
    """The personalisation with sum 1, or None for the uniform one. Raises as `pagerank` says."""
    if personalisation is None:
        return None
    if personalisation.shape != (vertices,):
        raise ValueError(f"personalisation needs {vertices} values, not {personalisation.shape}")
    total = float(personalisation.sum())
    if vertices and not (np.isfinite(total) and total > 0 and personalisation.min() >= 0):
        raise Rejected("personalisation needs finite values, none negative and at least one above 0")
    return personalisation / total if vertices else None


def base_mass(dangling: float, damping: float, vertices: int, teleport: Floats | None) -> float:
    """The `base` of `pull_range`: what teleports and what dangling vertices give; per vertex without `teleport`."""
    mass = 1.0 - damping + damping * dangling
    return mass / vertices if teleport is None else mass


class _Iteration:
    """The two iterates and the contributions between them; one instance is one run."""

    def __init__(
        self,
        csc: Adjacency,
        inverse: Floats,
        teleport: Floats | None,
        damping: float,
        ranges: list[VertexRange],
        sweep: Sweep,
    ) -> None:
        self.csc, self.inverse, self.damping, self.ranges, self.sweep = csc, inverse, float(damping), ranges, sweep
        self.teleport, self.vertices = teleport, csc.vertices
        self.ranks = np.full(self.vertices, 1.0 / self.vertices)
        self._spare = np.empty(self.vertices)
        self._contribution = np.empty(self.vertices)

    def until(self, residual: float, max_iter: int) -> tuple[int, Settled]:
        settled = settle(self.ranks, self.ranks, self.inverse, self._contribution, self.sweep)
        for iteration in range(1, max_iter + 1):
            base = base_mass(settled.dangling, self.damping, self.vertices, self.teleport)
            self._pull_all(base)
            self.ranks, self._spare = self._spare, self.ranks
            settled = settle(self._spare, self.ranks, self.inverse, self._contribution, self.sweep)
            if settled.residual < residual:
                return iteration, settled
        return max_iter, settled

    def _pull_all(self, base: float) -> None:
        offsets, indices = frozen(self.csc.offsets), frozen(self.csc.indices)
        weights = frozen(NO_WEIGHTS if self.csc.weights is None else self.csc.weights)
        contribution, start = frozen(self._contribution), int(offsets[0])
        teleport = NO_WEIGHTS if self.teleport is None else self.teleport

        def pull(part: VertexRange) -> None:
            first, last = part
            lo, hi = int(offsets[first]) - start, int(offsets[last]) - start
            _pull(
                offsets[first : last + 1], indices[lo:hi], weights[lo:hi], contribution,
                frozen(teleport[first:last]), base, self.damping, self._spare[first:last],
            )  # fmt: skip

        self.sweep(pull, self.ranges)


def _check(csc: Adjacency, damping: float, tol: float, max_iter: int) -> None:
    if not 0.0 <= damping <= 1.0:
        raise Rejected(f"damping must be within 0..1, not {damping}")
    if not tol >= 0 or max_iter < 1:
        raise Rejected(f"tol must be at least 0 and max_iter at least 1, not {tol} and {max_iter}")
    if csc.weights is not None and csc.edges and not (csc.weights.min() >= 0 and np.isfinite(csc.weights.max())):
        raise Rejected("edge weights must be finite and not negative")


def _range_count(vertices: int, threads: int | None) -> int:
    count = usable_cores() if threads is None else threads
    return 1 if count == 1 or vertices < BLOCK_VERTICES else count * RANGES_PER_THREAD


@compiled
def _pull(
    offsets: Any, indices: Any, weights: Any, contribution: Any, teleport: Any, base: float, damping: float, out: Any
) -> None:
    # Four sums, joined in one way: as fast as letting the compiler reorder, and the same bits on any machine.
    start = offsets[0]
    weighted, personal = len(weights) > 0, len(teleport) > 0
    for v in range(len(out)):
        k, end = offsets[v] - start, offsets[v + 1] - start
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        if weighted:
            while k < end:
                a += contribution[indices[k]] * weights[k]
                k += 1
        else:
            while k + 4 <= end:
                a += contribution[indices[k]]
                b += contribution[indices[k + 1]]
                c += contribution[indices[k + 2]]
                d += contribution[indices[k + 3]]
                k += 4
            while k < end:
                a += contribution[indices[k]]
                k += 1
        own = base * teleport[v] if personal else base
        out[v] = own + damping * ((a + b) + (c + d))


@compiled
def _settle_blocks(
    previous: Any, ranks: Any, inverse: Any, contribution: Any, first_block: int, last_block: int, sums: Any
) -> None:
    for block in range(first_block, last_block):
        dangling, residual = 0.0, 0.0
        for v in range(block * BLOCK_VERTICES, min((block + 1) * BLOCK_VERTICES, len(ranks))):
            rank, share = ranks[v], inverse[v]
            contribution[v] = rank * share
            if share == 0.0:
                dangling += rank
            residual += abs(rank - previous[v])
        sums[0, block] = dangling
        sums[1, block] = residual


@compiled
def _in_order(values: Any) -> float:
    total = 0.0
    for value in values:
        total += value
    return total
