"""Compressed adjacency from edge lists, and its division among partitions.

build_csc(src, dst, n)                  in-neighbours of each vertex: what PageRank pulls over
build_csr(src, dst, n)                  out-neighbours
check_adjacency(csc, n)                 before trusting one that was read from files
partition_by_edges(csc.offsets, parts)  ranges of vertices with about equal work
slice_range(csc, part)                  views of one range: what one partition actor holds
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Corrupt
from workloads.kernels.compiled import compiled
from workloads.kernels.threads import sweeper, usable_cores

Ints = NDArray[np.int64]
Indices = NDArray[np.int32] | NDArray[np.int64]
Floats = NDArray[np.float64]

NO_WEIGHTS: Floats = np.empty(0, np.float64)
INT32_VERTICES = 2**31
MAX_BUILD_THREADS = 8
"""Each build thread counts into an int64[n] of its own: this bounds them."""


@dataclass(frozen=True, slots=True)
class Adjacency:
    """Neighbours of vertices 0..n-1: those of `v` are `indices[offsets[v]:offsets[v + 1]]`, in the order of the input.

    offsets: int64[n + 1]. indices: int32[E], or int64[E] from 2**31 vertices on. weights: float64[E] or None (all 1).
    Parallel edges and self-loops stay as they came.
    """

    offsets: Ints
    indices: Indices
    weights: Floats | None = None

    @property
    def vertices(self) -> int:
        return len(self.offsets) - 1

    @property
    def edges(self) -> int:
        return len(self.indices)


class VertexRange(NamedTuple):
    """Vertices first..last-1."""

    first: int
    last: int


def build_csc(
    src: Ints, dst: Ints, vertices: int, weights: Floats | None = None, threads: int | None = None
) -> Adjacency:
    """Group edges by destination: stable counting sort, linear in edges and vertices.

    src, dst: int64[E] within 0..vertices-1, else ValueError. weights: float64[E] or None.
    The result is the same for any number of threads.
    """
    return _group(dst, src, vertices, weights, threads)


def build_csr(
    src: Ints, dst: Ints, vertices: int, weights: Floats | None = None, threads: int | None = None
) -> Adjacency:
    """Group edges by source; otherwise as `build_csc`."""
    return _group(src, dst, vertices, weights, threads)


def out_weights(csc: Adjacency, vertices: int | None = None) -> Floats:
    """Total weight of the edges that leave each vertex, from a CSC or a slice of one: float64[vertices].

    Without weights these are exact counts, so those of slices add up to that of the whole, bit for bit.
    With weights take it from the whole CSC: sums of slices may differ in the last bit.
    """
    totals = np.zeros(csc.vertices if vertices is None else vertices)
    _add_weights(frozen(csc.indices), frozen(NO_WEIGHTS if csc.weights is None else csc.weights), totals)
    return totals


def check_adjacency(adjacency: Adjacency, vertices: int) -> None:
    """Raise Corrupt unless offsets and neighbours fit together: the kernels trust them without looking.

    For arrays that come from files. A slice passes with the `vertices` of the whole graph.
    """
    offsets, indices, weights = adjacency.offsets, adjacency.indices, adjacency.weights
    if len(offsets) == 0 or offsets[-1] - offsets[0] != len(indices) or bool((np.diff(offsets) < 0).any()):
        raise Corrupt("adjacency: the offsets do not fit the edges; verify the snapshot and take a new one")
    if len(indices) and not (indices.min() >= 0 and indices.max() < vertices):
        raise Corrupt(f"adjacency: a neighbour is outside 0..{vertices - 1}; verify the snapshot and take a new one")
    if weights is not None and len(weights) != len(indices):
        raise Corrupt(f"adjacency: {len(indices)} edges but {len(weights)} weights; verify the snapshot")


def partition_by_edges(offsets: Ints, parts: int) -> list[VertexRange]:
    """Divide vertices into `parts` consecutive ranges of about equal work (edges, and one for each vertex).

    A vertex is never divided: one with more than its share of edges makes a large range, and there may be empty ones.
    """
    if parts < 1:
        raise ValueError(f"parts must be at least 1, not {parts}")
    vertices = len(offsets) - 1
    work = offsets - offsets[0] + np.arange(vertices + 1)
    targets = np.arange(1, parts) * (int(work[-1]) / parts)
    bounds = [0, *np.searchsorted(work, targets).tolist(), vertices]
    return [VertexRange(first, last) for first, last in pairwise(bounds)]


def slice_range(csc: Adjacency, part: VertexRange) -> Adjacency:
    """The part of an adjacency that belongs to a range: views, no copies; offsets still count from the whole's start.

    Neighbours keep the numbers of the whole graph. The kernels take such offsets as they are.
    """
    offsets = csc.offsets[part.first : part.last + 1]
    edges = slice(int(offsets[0] - csc.offsets[0]), int(offsets[-1] - csc.offsets[0]))
    return Adjacency(offsets, csc.indices[edges], None if csc.weights is None else csc.weights[edges])


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous read-only view. Arrays from an object store are read-only and numba compiles for each kind:
    giving it always this kind compiles once."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _group(rows: Ints, columns: Ints, vertices: int, weights: Floats | None, threads: int | None) -> Adjacency:
    _check_edges(rows, columns, weights)
    rows, columns = frozen(np.asarray(rows, np.int64)), frozen(np.asarray(columns, np.int64))
    given = frozen(NO_WEIGHTS if weights is None else np.asarray(weights, np.float64))
    indices: Indices = np.empty(len(rows), np.int32) if vertices < INT32_VERTICES else np.empty(len(rows), np.int64)
    ordered = np.empty(len(given), np.float64)
    with sweeper(threads) as sweep:
        chunks = _chunks(len(rows), vertices, threads)
        counts = np.zeros((len(chunks), vertices), np.int64)
        bad = np.zeros(len(chunks), np.int64)

        def count(item: tuple[int, int, int]) -> None:
            bad[item[0]] = _count(rows, columns, item[1], item[2], counts[item[0]])

        def scatter(item: tuple[int, int, int]) -> None:
            _scatter(rows, columns, given, item[1], item[2], counts[item[0]], indices, ordered)

        sweep(count, chunks)
        if bad.any():
            raise ValueError(f"{int(bad.sum())} edges have an end outside 0..{vertices - 1}")
        offsets = _starts(counts)
        sweep(scatter, chunks)
    return Adjacency(offsets, indices, None if weights is None else ordered)


def _check_edges(rows: Ints, columns: Ints, weights: Floats | None) -> None:
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(f"src and dst must be one-dimensional and equally long, not {rows.shape} and {columns.shape}")
    if weights is not None and weights.shape != rows.shape:
        raise ValueError(f"{len(rows)} edges need as many weights, not {weights.shape}")


def _chunks(edges: int, vertices: int, threads: int | None) -> list[tuple[int, int, int]]:
    # A chunk costs a pass over the vertices: worth it only where each has several edges for every vertex.
    count = min(threads or usable_cores(), MAX_BUILD_THREADS, max(1, edges // max(1, 2 * vertices)))
    bounds = [edges * chunk // count for chunk in range(count + 1)]
    return [(chunk, bounds[chunk], bounds[chunk + 1]) for chunk in range(count)]


@compiled
def _add_weights(indices: Any, weights: Any, totals: Any) -> None:
    weighted = len(weights) > 0
    for k in range(len(indices)):
        totals[indices[k]] += weights[k] if weighted else 1.0


@compiled
def _count(rows: Any, columns: Any, first: int, last: int, counts: Any) -> int:
    vertices, bad = len(counts), 0
    for k in range(first, last):
        row, column = rows[k], columns[k]
        if row < 0 or row >= vertices or column < 0 or column >= vertices:
            bad += 1
        else:
            counts[row] += 1
    return bad


@compiled
def _starts(counts: Any) -> Any:
    """Turn counts[chunk, row] into where that chunk's edges of that row begin, and return the offsets."""
    chunks, vertices = counts.shape
    offsets = np.empty(vertices + 1, np.int64)
    at = 0
    for row in range(vertices):
        offsets[row] = at
        for chunk in range(chunks):
            count = counts[chunk, row]
            counts[chunk, row] = at
            at += count
    offsets[vertices] = at
    return offsets


@compiled
def _scatter(
    rows: Any, columns: Any, weights: Any, first: int, last: int, cursor: Any, indices: Any, ordered: Any
) -> None:
    weighted = len(weights) > 0
    for k in range(first, last):
        row = rows[k]
        at = cursor[row]
        cursor[row] = at + 1
        indices[at] = columns[k]
        if weighted:
            ordered[at] = weights[k]
