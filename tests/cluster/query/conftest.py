"""A graph of one's own on the run's server of each graph database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.query.facts import Graph
from tests.graph_stores import GraphStore


@pytest.fixture
def graph(graph_store: GraphStore) -> Iterator[Graph]:
    """An empty graph that serves every bucket."""
    made = Graph(graph_store, graph_store.fresh())
    yield made
    made.close()
