"""The undirected view of an edge list, and the quality of a division of it.

merge(src, dst, n)              pairs low <= high, each once, with the weight of all edges between them
modularity(src, dst, labels)    straight from the edges as given, so that it also checks `merge` and any solver
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from workloads.kernels.compiled import compiled
from workloads.kernels.csr import NO_WEIGHTS, Adjacency, Floats, Ints, build_csc, build_csr, frozen


class Pairs(NamedTuple):
    """Undirected edges, sorted by (low, high), no pair twice; low == high is a self-loop. All of length P."""

    low: Ints
    high: Ints
    weights: Floats


def merge(src: Ints, dst: Ints, vertices: int, weights: Floats | None = None, threads: int | None = None) -> Pairs:
    """Forget directions and add up parallel edges: int64[P], int64[P], float64[P].

    Two stable counting sorts, linear in edges and vertices. Without weights an edge counts 1; the result then
    does not depend on the order of the edges. Raises ValueError for ends outside 0..vertices-1.
    """
    by_high = build_csc(np.minimum(src, dst), np.maximum(src, dst), vertices, weights, threads)
    ordered = build_csr(
        by_high.indices.astype(np.int64), row_numbers(by_high), vertices, by_high.weights, threads=threads
    )
    low, high, totals = row_numbers(ordered), np.asarray(ordered.indices, np.int64), ordered.weights
    kept = _fold_runs(low, high, NO_WEIGHTS if totals is None else totals)
    return Pairs(*kept)


def row_numbers(adjacency: Adjacency) -> Ints:
    """The vertex that each entry of `indices` belongs to: int64[E]. With `indices` it is the edge list again."""
    return np.repeat(np.arange(adjacency.vertices), np.diff(adjacency.offsets))


def modularity(src: Ints, dst: Ints, labels: Ints, weights: Floats | None = None, resolution: float = 1.0) -> float:
    """Newman's modularity of `labels: int64[n]` (values 0..n-1) on the undirected graph; within -1..1.

    Parallel edges add up, a self-loop counts once in the total and twice in its vertex's degree (as in networkx).
    A graph without weight has 0. Source: Newman 2004, doi:10.1103/PhysRevE.69.066133, equation 1 by communities.
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(labels)):
        raise ValueError(f"labels must be within 0..{len(labels) - 1}")
    ends = (frozen(np.asarray(src, np.int64)), frozen(np.asarray(dst, np.int64)))
    given = frozen(NO_WEIGHTS if weights is None else np.asarray(weights, np.float64))
    return float(_modularity(*ends, given, frozen(np.asarray(labels, np.int64)), resolution))


@compiled
def _fold_runs(low: Any, high: Any, weights: Any) -> Any:
    weighted = len(weights) > 0
    totals = np.empty(len(low), np.float64)
    last = -1
    for k in range(len(low)):
        weight = weights[k] if weighted else 1.0
        if last >= 0 and low[last] == low[k] and high[last] == high[k]:
            totals[last] += weight
        else:
            last += 1
            low[last], high[last], totals[last] = low[k], high[k], weight
    return low[: last + 1].copy(), high[: last + 1].copy(), totals[: last + 1].copy()


@compiled
def _modularity(src: Any, dst: Any, weights: Any, labels: Any, resolution: float) -> float:
    degree, inside = np.zeros(len(labels)), np.zeros(len(labels))
    weighted, total = len(weights) > 0, 0.0
    for k in range(len(src)):
        weight = weights[k] if weighted else 1.0
        a, b = labels[src[k]], labels[dst[k]]
        total += weight
        degree[a] += weight
        degree[b] += weight
        if a == b:
            inside[a] += weight
    if total == 0.0:
        return 0.0
    quality = 0.0
    for community in range(len(labels)):
        quality += inside[community] / total - resolution * (degree[community] / (2.0 * total)) ** 2
    return quality
