"""Adjacency against a plain sort, and its division."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Corrupt
from tests.workloads.kernels.graphs import Edges, edge_lists, rmat
from workloads.kernels import csr
from workloads.kernels.csr import (
    Adjacency,
    build_csc,
    build_csr,
    check_adjacency,
    out_weights,
    partition_by_edges,
    slice_range,
)


@settings(deadline=None)
@given(edge_lists(), st.sampled_from([1, 2, 5]))
def test_groups_as_a_stable_sort_does(edges: Edges, threads: int) -> None:
    csc = build_csc(edges.src, edges.dst, edges.vertices, edges.weights, threads)
    order = np.argsort(edges.dst, kind="stable")
    assert csc.indices.tolist() == edges.src[order].tolist()
    assert csc.weights is not None
    assert csc.weights.tolist() == edges.weights[order].tolist()
    assert csc.offsets.tolist() == np.searchsorted(edges.dst[order], np.arange(edges.vertices + 1)).tolist()
    assert csc.indices.dtype == np.int32
    assert csc.offsets.dtype == np.int64
    transposed = build_csr(edges.dst, edges.src, edges.vertices, None, threads)
    assert transposed.indices.tolist() == csc.indices.tolist()
    assert transposed.weights is None
    check_adjacency(csc, edges.vertices)


def test_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = rmat(10, 16, seed=3)
    one = build_csc(edges.src, edges.dst, edges.vertices, edges.weights, threads=1)
    for threads in (2, 3, 7):
        several = build_csc(edges.src, edges.dst, edges.vertices, edges.weights, threads=threads)
        assert len(csr._chunks(len(edges.src), edges.vertices, threads)) == threads
        assert np.array_equal(one.offsets, several.offsets)
        assert np.array_equal(one.indices, several.indices)
        assert one.weights is not None
        assert several.weights is not None
        assert np.array_equal(one.weights, several.weights)
    monkeypatch.setattr(csr, "INT32_VERTICES", 0)
    wide = build_csc(edges.src, edges.dst, edges.vertices)
    assert wide.indices.dtype == np.int64
    assert np.array_equal(wide.indices, one.indices)


@settings(deadline=None)
@given(edge_lists(), st.integers(1, 9))
def test_ranges_cover_every_vertex_once_and_slices_join_again(edges: Edges, parts: int) -> None:
    csc = build_csc(edges.src, edges.dst, edges.vertices, edges.weights)
    ranges = partition_by_edges(csc.offsets, parts)
    assert len(ranges) == parts
    assert ranges[0].first == 0
    assert ranges[-1].last == edges.vertices
    assert all(a.last == b.first for a, b in itertools.pairwise(ranges))
    slices, weights = [slice_range(csc, part) for part in ranges], csc.weights
    assert weights is not None
    assert np.concatenate([s.indices for s in slices]).tolist() == csc.indices.tolist()
    assert np.concatenate([s.weights for s in slices if s.weights is not None]).tolist() == weights.tolist()
    for part in slices:
        check_adjacency(part, edges.vertices)
    again = [slice_range(slice_range(csc, r), csr.VertexRange(0, r.last - r.first)) for r in ranges]
    assert [s.indices.tolist() for s in again] == [s.indices.tolist() for s in slices]
    counts = sum(out_weights(Adjacency(s.offsets, s.indices), edges.vertices) for s in slices)
    assert np.array_equal(counts, np.bincount(edges.src, minlength=edges.vertices))


def test_ranges_are_balanced() -> None:
    edges = rmat(12, 16, seed=1)
    csc = build_csc(edges.src, edges.dst, edges.vertices)
    work = np.diff(csc.offsets) + 1
    shares = [int(work[r.first : r.last].sum()) for r in partition_by_edges(csc.offsets, 8)]
    assert max(shares) <= work.sum() / 8 + work.max()


@pytest.mark.parametrize(("src", "dst"), [([0, -1], [1, 1]), ([0, 1], [2, 1]), ([0, 2], [1, 1])])
def test_ends_outside_are_refused(src: list[int], dst: list[int]) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        build_csc(np.array(src), np.array(dst), 2)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        build_csc(np.zeros(2, np.int64), np.zeros(3, np.int64), 4)
    with pytest.raises(ValueError, match="weights"):
        build_csc(np.zeros(2, np.int64), np.zeros(2, np.int64), 4, np.ones(1))
    with pytest.raises(ValueError, match="parts"):
        partition_by_edges(np.zeros(1, np.int64), 0)
    with pytest.raises(ValueError, match="threads"):
        build_csc(np.zeros(2, np.int64), np.zeros(2, np.int64), 4, threads=0)


@pytest.mark.parametrize(
    ("offsets", "indices", "weights"),
    [
        ([0, 1, 3], [0, 1], None),
        ([0, 2, 1, 2], [0, 1], None),
        ([0, 1, 2], [0, 2], None),
        ([0, 1, 2], [0, -1], None),
        ([0, 1, 2], [0, 1], [1.0]),
        ([], [], None),
    ],
)
def test_damaged_adjacency_is_found(offsets: list[int], indices: list[int], weights: list[float] | None) -> None:
    given_weights = None if weights is None else np.array(weights)
    damaged = Adjacency(np.array(offsets, np.int64), np.array(indices, np.int32), given_weights)
    with pytest.raises(Corrupt):
        check_adjacency(damaged, 2)
