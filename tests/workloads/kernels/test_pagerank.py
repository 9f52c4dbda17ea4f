"""PageRank against networkx, and its bits against any division of the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cluster.errors import Rejected
from tests.workloads.kernels.graphs import Edges, edge_lists, networkx_graph, rmat
from workloads.kernels import pagerank as module
from workloads.kernels.csr import Adjacency, build_csc, out_weights, partition_by_edges, slice_range
from workloads.kernels.pagerank import base_mass, inverse_weights, pagerank, pull_range, settle, teleport_vector

Vector = NDArray[np.float64]
TOL = 1e-13


def oracle(edges: Edges, damping: float, weighted: bool, personalisation: Vector | None) -> Vector:
    chosen = None if personalisation is None else dict(enumerate(personalisation.tolist()))
    graph = networkx_graph(edges, directed=True, weighted=weighted)
    found = nx.pagerank(graph, alpha=damping, personalization=chosen, tol=TOL, max_iter=2000)
    return np.array([found[v] for v in range(edges.vertices)])


@settings(deadline=None)
@given(edge_lists(), st.sampled_from([0.0, 0.5, 0.85, 0.95]), st.booleans(), st.booleans(), st.data())
def test_agrees_with_networkx(
    edges: Edges, damping: float, weighted: bool, personal: bool, data: st.DataObject
) -> None:
    personalisation = None
    if personal and edges.vertices:
        drawn = data.draw(st.lists(st.sampled_from([0.0, 1.0, 7.5]), min_size=edges.vertices, max_size=edges.vertices))
        personalisation = np.array(drawn) if any(drawn) else None
    csc = build_csc(edges.src, edges.dst, edges.vertices, edges.weights if weighted else None)
    result = pagerank(csc, damping=damping, personalisation=personalisation, tol=TOL, max_iter=2000)
    assert result.converged
    assert result.residual < max(1, edges.vertices) * TOL
    expected = oracle(edges, damping, weighted, personalisation)
    np.testing.assert_allclose(result.ranks, expected, rtol=0, atol=1e-9)
    assert edges.vertices == 0 or abs(result.ranks.sum() - 1) < 1e-9


@pytest.mark.parametrize("personal", [False, True])
def test_agrees_with_networkx_on_a_skewed_graph(personal: bool) -> None:
    edges = rmat(11, 8, seed=5)
    personalisation = np.arange(edges.vertices, dtype=np.float64) % 3 if personal else None
    csc = build_csc(edges.src, edges.dst, edges.vertices)
    result = pagerank(csc, tol=TOL, max_iter=500, personalisation=personalisation)
    np.testing.assert_allclose(result.ranks, oracle(edges, 0.85, False, personalisation), rtol=0, atol=1e-9)


def test_stops_where_networkx_stops() -> None:
    edges = rmat(8, 4, seed=9)
    graph = networkx_graph(edges, directed=True, weighted=False)
    csc = build_csc(edges.src, edges.dst, edges.vertices)
    needed = pagerank(csc, tol=1e-8).iterations
    nx.pagerank(graph, tol=1e-8, max_iter=needed)
    with pytest.raises(nx.PowerIterationFailedConvergence):
        nx.pagerank(graph, tol=1e-8, max_iter=needed - 1)
    short = pagerank(csc, tol=1e-8, max_iter=needed - 1)
    assert not short.converged
    assert short.iterations == needed - 1
    assert short.residual >= edges.vertices * 1e-8


def test_tolerance_zero_does_every_iteration() -> None:
    edges = Edges(3, np.array([0, 1, 2]), np.array([1, 2, 0]), np.ones(3))
    result = pagerank(build_csc(edges.src, edges.dst, 3), tol=0, max_iter=7)
    assert (result.iterations, result.converged) == (7, False)
    np.testing.assert_allclose(result.ranks, 1 / 3, atol=1e-15)


def test_residual_is_the_distance_of_the_last_two_iterates() -> None:
    edges = rmat(13, 4, seed=8)
    csc = build_csc(edges.src, edges.dst, edges.vertices)
    before, after = pagerank(csc, tol=0, max_iter=4), pagerank(csc, tol=0, max_iter=5)
    assert after.residual == pytest.approx(float(np.abs(after.ranks - before.ranks).sum()), rel=1e-12)


def test_empty_graph_has_no_ranks() -> None:
    result = pagerank(build_csc(np.empty(0, np.int64), np.empty(0, np.int64), 0))
    assert result.ranks.shape == (0,)
    assert result.converged


def in_partitions(csc: Adjacency, parts: int, iterations: int, teleport: Vector | None) -> Vector:
    """What partition actors do: own slices, exchange of whole vectors, read-only inputs."""
    inverse, vertices = inverse_weights(out_weights(csc)), csc.vertices
    ranges = partition_by_edges(csc.offsets, parts)
    slices = [slice_range(csc, part) for part in ranges]
    ranks, contribution = np.full(vertices, 1 / vertices), np.empty(vertices)
    settled = settle(ranks, ranks, inverse, contribution)
    for _ in range(iterations):
        base, pieces = base_mass(settled.dangling, 0.85, vertices, teleport), []
        for part, own in zip(ranges, slices, strict=True):
            out = np.full(part.last - part.first, np.nan)
            shares = None if teleport is None else teleport[part.first : part.last]
            rebased = own.offsets - own.offsets[0] if part.first % 2 else own.offsets
            contribution.flags.writeable = False
            pull_range(rebased, own.indices, contribution, out, base, 0.85, weights=own.weights, teleport=shares)
            pieces.append(out)
        previous, ranks, contribution = ranks, np.concatenate(pieces), np.empty(vertices)
        settled = settle(previous, ranks, inverse, contribution)
    return ranks


@settings(deadline=None, max_examples=30)
@given(edge_lists(min_vertices=1), st.booleans(), st.booleans(), st.integers(1, 8))
def test_partitions_give_the_same_bits(edges: Edges, weighted: bool, personal: bool, parts: int) -> None:
    csc = build_csc(edges.src, edges.dst, edges.vertices, edges.weights if weighted else None)
    personalisation = np.arange(1.0, edges.vertices + 1) if personal else None
    whole = pagerank(csc, tol=0, max_iter=9, personalisation=personalisation)
    teleport = teleport_vector(personalisation, edges.vertices)
    assert in_partitions(csc, parts, 9, teleport).tobytes() == whole.ranks.tobytes()


@pytest.mark.parametrize("weighted", [False, True])
def test_threads_and_partitions_give_the_same_bits_over_many_blocks(weighted: bool) -> None:
    edges = rmat(15, 4, seed=2)
    assert edges.vertices > 4 * module.BLOCK_VERTICES
    csc = build_csc(edges.src, edges.dst, edges.vertices, edges.weights if weighted else None)
    one = pagerank(csc, tol=0, max_iter=6, threads=1)
    for threads in (2, 3, 5):
        several = pagerank(csc, tol=0, max_iter=6, threads=threads)
        assert several.ranks.tobytes() == one.ranks.tobytes()
        assert several.residual == one.residual
    for parts in (2, 7):
        assert in_partitions(csc, parts, 6, None).tobytes() == one.ranks.tobytes()


def test_runs_at_the_same_time_do_not_disturb_each_other() -> None:
    edges = rmat(13, 8, seed=6)
    csc = build_csc(edges.src, edges.dst, edges.vertices)
    expected = pagerank(csc, tol=0, max_iter=20).ranks.tobytes()
    with ThreadPoolExecutor(6) as pool:
        runs = [pool.submit(pagerank, csc, tol=0, max_iter=20, threads=2) for _ in range(12)]
        assert {run.result().ranks.tobytes() for run in runs} == {expected}


@pytest.mark.parametrize(
    "wrong",
    [
        {"damping": 1.1},
        {"damping": float("nan")},
        {"tol": -1.0},
        {"tol": float("nan")},
        {"max_iter": 0},
        {"personalisation": np.zeros(2)},
        {"personalisation": np.array([1.0, -0.5])},
        {"personalisation": np.array([1.0, np.inf])},
        {"personalisation": np.array([1.0, np.nan])},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    csc = build_csc(np.array([0]), np.array([1]), 2)
    with pytest.raises(Rejected):
        pagerank(csc, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 5e-324])
def test_weights_out_of_bounds_are_refused(weight: float) -> None:
    with pytest.raises(Rejected, match="weights"):
        pagerank(build_csc(np.array([0]), np.array([1]), 2, np.array([weight])))


def test_vectors_of_the_wrong_length_are_refused() -> None:
    csc = build_csc(np.array([0]), np.array([1]), 2)
    with pytest.raises(ValueError, match="out_weight"):
        pagerank(csc, np.ones(3))
    with pytest.raises(ValueError, match="personalisation"):
        pagerank(csc, personalisation=np.ones(3))
