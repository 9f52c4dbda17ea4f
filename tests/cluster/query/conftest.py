"""A graph of one's own on the run's FalkorDB shard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.query.facts import Graph
from tests.conftest import Running


@pytest.fixture
def graph(falkor_server: Running, unique: str) -> Iterator[Graph]:
    """An empty graph that serves every bucket."""
    made = Graph(falkor_server, unique)
    yield made
    made.close()
