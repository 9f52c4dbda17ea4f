"""Communities by networkit's Louvain (PLM, with refinement), the same ones for the same graph.

PLM differs from run to run on several threads, so it runs on one, with fixed seeds. Parallel edges are added up
first, which makes the result independent of the order of the edges. Small graphs are solved several times from
different vertex orders and the best division is kept: one run of a greedy method can be far off there.
Source: Staudt and Meyerhenke 2016, doi:10.1109/TPDS.2015.2390633.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import networkit
import numpy as np
from scipy.sparse import csr_matrix

from cluster.errors import Rejected
from workloads.kernels.csr import Floats, Ints
from workloads.kernels.undirected import Pairs, merge, modularity

MAX_ATTEMPTS = 256
ATTEMPT_EDGES = 1_000_000
"""Edges that all attempts together may look at: above half of it there is one attempt."""

_networkit_settings = threading.Lock()
"""Its seed and number of threads belong to the process."""


@dataclass(frozen=True, slots=True)
class LouvainResult:
    """labels: int64[n], the least vertex of each vertex's community. modularity: recomputed from the edges as given."""

    labels: Ints
    modularity: float
    prepare_s: float
    solve_s: float
    check_s: float

    @property
    def communities(self) -> int:
        """How many there are, single vertices included."""
        return int((self.labels == np.arange(len(self.labels))).sum())


def louvain(
    src: Ints,
    dst: Ints,
    vertices: int,
    weights: Floats | None = None,
    *,
    resolution: float = 1.0,
    seed: int = 1,
    threads: int | None = None,
) -> LouvainResult:
    """Divide vertices 0..n-1 into communities; directions are ignored, parallel edges add up.

    src, dst: int64[E]; weights: float64[E], finite and not negative, or None. threads: for preparing only.
    A vertex without edges to others is a community of its own. Equal input gives equal labels. Blocks other
    calls in this process. Raises Rejected for settings and weights out of bounds, ValueError for wrong ends.
    """
    if not resolution > 0:
        raise Rejected(f"resolution must be above 0, not {resolution}")
    if weights is not None and len(weights) and not (weights.min() >= 0 and np.isfinite(weights.max())):
        raise Rejected("edge weights must be finite and not negative")
    began = time.perf_counter()
    pairs = _joining(merge(src, dst, vertices, weights, threads))
    with _one_thread():
        matrix = csr_matrix((pairs.weights, (pairs.low, pairs.high)), shape=(vertices, vertices))
        graph = networkit.GraphFromCsr(matrix, directed=False, weighted=True)
        prepared = time.perf_counter()
        labels = _best(graph, pairs, vertices, resolution, seed)
    solved = time.perf_counter()
    quality = modularity(src, dst, labels, weights, resolution)
    return LouvainResult(labels, quality, prepared - began, solved - prepared, time.perf_counter() - solved)


def canonical_labels(labels: Ints) -> Ints:
    """Rename communities: each gets the number of its least vertex. int64[n] of any values → int64[n]; idempotent."""
    _, least, community = np.unique(labels, return_index=True, return_inverse=True)
    return least.astype(np.int64)[community]


def attempts_for(pairs: int) -> int:
    """How often a graph with that many distinct edges is solved: 1..MAX_ATTEMPTS."""
    return min(MAX_ATTEMPTS, max(1, ATTEMPT_EDGES // max(1, pairs)))


def _joining(pairs: Pairs) -> Pairs:
    kept = pairs.weights > 0
    return pairs if kept.all() else Pairs(pairs.low[kept], pairs.high[kept], pairs.weights[kept])


def _best(graph: Any, pairs: Pairs, vertices: int, resolution: float, seed: int) -> Ints:
    best, best_quality = np.arange(vertices), -np.inf
    for attempt in range(attempts_for(len(pairs.low)) if len(pairs.low) else 0):
        networkit.setSeed(seed + attempt, False)
        labels = _solve(graph, resolution, "none" if attempt == 0 else "none randomized")
        quality = modularity(pairs.low, pairs.high, labels, pairs.weights, resolution)
        if quality > best_quality:
            best, best_quality = labels, quality
    return best


def _solve(graph: Any, resolution: float, order: str) -> Ints:
    solver = networkit.community.PLM(graph, refine=True, gamma=resolution, par=order)
    solver.run()
    return canonical_labels(np.asarray(solver.getPartition().getVector(), np.int64))


@contextmanager
def _one_thread() -> Iterator[None]:
    with _networkit_settings:
        before = networkit.getMaxNumberOfThreads()
        networkit.setNumberOfThreads(1)
        try:
            yield
        finally:
            networkit.setNumberOfThreads(before)
