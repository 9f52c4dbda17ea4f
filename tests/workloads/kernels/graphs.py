"""Random small multigraphs: parallel edges, self-loops, dangling and isolated vertices, and none at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray


class Edges(NamedTuple):
    vertices: int
    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    weights: NDArray[np.float64]


@st.composite
def edge_lists(draw: st.DrawFn, min_vertices: int = 0, max_vertices: int = 30, max_edges: int = 90) -> Edges:
    vertices = draw(st.integers(min_vertices, max_vertices))
    count = draw(st.integers(0, max_edges)) if vertices else 0
    end = st.integers(0, max(0, vertices - 1))
    src = draw(st.lists(end, min_size=count, max_size=count))
    dst = draw(st.lists(end, min_size=count, max_size=count))
    # Zero included: a vertex whose edges all weigh nothing is dangling.
    weights = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.5]), min_size=count, max_size=count))
    return Edges(vertices, np.array(src, np.int64), np.array(dst, np.int64), np.array(weights, np.float64))


def rmat(scale: int, edge_factor: int, seed: int) -> Edges:
    rng = np.random.default_rng(seed)
    vertices, count = 1 << scale, edge_factor << scale
    src, dst = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for bit in range(scale):
        draw = rng.random(count)
        src |= (draw > 0.76).astype(np.int64) << bit
        dst |= (((draw > 0.57) & (draw <= 0.76)) | (draw > 0.95)).astype(np.int64) << bit
    return Edges(vertices, src, dst, rng.random(count))


def networkx_graph(edges: Edges, directed: bool, weighted: bool) -> Any:
    graph: Any = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.add_nodes_from(range(edges.vertices))
    weights = edges.weights if weighted else np.ones(len(edges.src))
    graph.add_weighted_edges_from(zip(edges.src.tolist(), edges.dst.tolist(), weights.tolist(), strict=True))
    return graph
