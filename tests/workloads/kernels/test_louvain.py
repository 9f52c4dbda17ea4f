"""Communities: quality against networkit, modularity against networkx, names that last."""

from __future__ import annotations

from random import Random

import networkit
import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cluster.errors import Rejected
from tests.workloads.kernels.graphs import Edges, edge_lists, networkx_graph, rmat
from workloads.kernels.louvain import MAX_ATTEMPTS, attempts_for, canonical_labels, louvain
from workloads.kernels.undirected import merge, modularity


def groups(labels: NDArray[np.int64]) -> list[set[int]]:
    return [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]


@settings(deadline=None)
@given(edge_lists(min_vertices=1), st.booleans(), st.sampled_from([1.0, 0.5, 2.0]), st.data())
def test_modularity_agrees_with_networkx(edges: Edges, weighted: bool, resolution: float, data: st.DataObject) -> None:
    weights = edges.weights if weighted else None
    assume(len(edges.src) > 0 and (weights is None or weights.sum() > 0))
    label = st.integers(0, edges.vertices - 1)
    labels = np.array(data.draw(st.lists(label, min_size=edges.vertices, max_size=edges.vertices)))
    graph = networkx_graph(edges, directed=False, weighted=weighted)
    expected = nx.community.modularity(graph, groups(labels), resolution=resolution)
    assert modularity(edges.src, edges.dst, labels, weights, resolution) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(edge_lists())
def test_merge_adds_parallel_edges_up_in_both_directions(edges: Edges) -> None:
    low, high, weights = merge(edges.src, edges.dst, edges.vertices, edges.weights)
    expected: dict[tuple[int, int], float] = {}
    for a, b, weight in zip(edges.src.tolist(), edges.dst.tolist(), edges.weights.tolist(), strict=True):
        expected[min(a, b), max(a, b)] = expected.get((min(a, b), max(a, b)), 0.0) + weight
    found = list(zip(low.tolist(), high.tolist(), strict=True))
    assert found == sorted(expected)
    assert weights.tolist() == [expected[pair] for pair in found]


def peer_quality(edges: Edges) -> float:
    networkit.setNumberOfThreads(1)  # its luck is the same then, whatever ran before
    networkit.setSeed(1, False)
    ones = np.ones(len(edges.src))
    graph = networkit.GraphFromCoo((ones, (edges.src, edges.dst)), n=edges.vertices, directed=False)
    solver = networkit.community.PLM(graph)
    solver.run()
    labels = canonical_labels(np.asarray(solver.getPartition().getVector(), np.int64))
    return modularity(edges.src, edges.dst, labels)


@settings(deadline=None, max_examples=100, derandomize=True)  # the peer is a matter of luck on graphs this small
@given(edge_lists(min_vertices=2, max_vertices=60, max_edges=150))
def test_quality_is_that_of_networkit(edges: Edges) -> None:
    assume(len(edges.src) > 0)
    result = louvain(edges.src, edges.dst, edges.vertices)
    assert result.modularity >= 0.995 * peer_quality(edges) - 1e-12


@pytest.mark.parametrize("scale", [10, 14])
def test_quality_is_that_of_networkit_on_skewed_graphs(scale: int) -> None:
    edges = rmat(scale, 8, seed=scale)
    result = louvain(edges.src, edges.dst, edges.vertices)
    assert result.modularity >= 0.995 * peer_quality(edges)
    graph = networkx_graph(edges, directed=False, weighted=False)
    assert result.modularity == pytest.approx(nx.community.modularity(graph, groups(result.labels)), abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(edge_lists(), st.booleans(), st.randoms(use_true_random=False))
def test_same_graph_same_names(edges: Edges, weighted: bool, random: Random) -> None:
    weights = edges.weights if weighted else None
    first = louvain(edges.src, edges.dst, edges.vertices, weights)
    louvain(np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0]), 4, seed=99)
    networkit.setSeed(random.randint(0, 1000), True)
    again = louvain(edges.src, edges.dst, edges.vertices, weights)
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.modularity == again.modularity
    if not weighted:
        order = np.random.default_rng(random.randint(0, 1000)).permutation(len(edges.src))
        shuffled = louvain(edges.dst[order], edges.src[order], edges.vertices)
        assert first.labels.tobytes() == shuffled.labels.tobytes()


def test_same_names_whatever_networkit_did_before() -> None:
    edges = rmat(10, 8, seed=7)
    labels = []
    for seed in (5, 6):
        networkit.setSeed(seed, True)
        peer_quality(edges)
        labels.append(louvain(edges.src, edges.dst, edges.vertices).labels.tobytes())
    assert labels[0] == labels[1]


def test_refinement_finds_more_than_plain_moves_on_a_large_graph() -> None:
    edges = rmat(15, 20, seed=4)
    assert louvain(edges.src, edges.dst, edges.vertices).modularity > 1.01 * peer_quality(edges)


def test_same_names_on_a_graph_with_one_attempt() -> None:
    edges = rmat(15, 20, seed=4)
    assert attempts_for(len(merge(edges.src, edges.dst, edges.vertices).low)) == 1
    first = louvain(edges.src, edges.dst, edges.vertices)
    assert first.labels.tobytes() == louvain(edges.src, edges.dst, edges.vertices).labels.tobytes()


@settings(deadline=None)
@given(edge_lists())
def test_names_are_least_members_and_isolated_vertices_stay_alone(edges: Edges) -> None:
    labels = louvain(edges.src, edges.dst, edges.vertices, edges.weights).labels
    assert labels.dtype == np.int64
    assert len(labels) == edges.vertices
    assert all(min(group) == labels[min(group)] for group in groups(labels))
    joined = (edges.weights > 0) & (edges.src != edges.dst)
    alone = set(range(edges.vertices)) - set(edges.src[joined].tolist()) - set(edges.dst[joined].tolist())
    assert all(group == {next(iter(group))} for group in groups(labels) if group & alone)


def test_two_cliques_are_two_communities() -> None:
    pairs = [(a, b) for base in (0, 5) for a in range(base, base + 5) for b in range(a + 1, base + 5)] + [(4, 5)]
    src, dst = np.array(pairs).T
    result = louvain(src, dst, 11)
    assert result.labels.tolist() == [0] * 5 + [5] * 5 + [10]
    assert result.communities == 3


def test_empty_graph_has_no_communities() -> None:
    result = louvain(np.empty(0, np.int64), np.empty(0, np.int64), 0)
    assert (len(result.labels), result.modularity, result.communities) == (0, 0.0, 0)


def test_settings_of_networkit_are_given_back() -> None:
    before = networkit.getMaxNumberOfThreads()
    networkit.setNumberOfThreads(3)
    try:
        louvain(np.array([0]), np.array([1]), 2)
        assert networkit.getMaxNumberOfThreads() == 3
    finally:
        networkit.setNumberOfThreads(before)


def test_canonical_labels_take_any_values_and_are_idempotent() -> None:
    labels = canonical_labels(np.array([70, -3, 70, 9, -3]))
    assert labels.tolist() == [0, 1, 0, 3, 1] == canonical_labels(labels).tolist()


def test_attempts_are_bounded() -> None:
    assert (attempts_for(0), attempts_for(100), attempts_for(10**9)) == (MAX_ATTEMPTS, MAX_ATTEMPTS, 1)


def test_out_of_bounds_is_refused() -> None:
    one = np.array([0])
    with pytest.raises(Rejected, match="weights"):
        louvain(one, one, 1, np.array([-1.0]))
    with pytest.raises(Rejected, match="resolution"):
        louvain(one, one, 1, resolution=0)
    with pytest.raises(ValueError, match="outside"):
        louvain(one, np.array([1]), 1)
    with pytest.raises(ValueError, match="labels"):
        modularity(one, one, np.array([1]))
