"""The API over two real shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.graph_stores import FalkorStore, GraphStore
from tests.serve_apps.api.stand import Stand


@pytest.fixture(params=["falkordb", pytest.param("neo4j", marks=pytest.mark.production)])
def stand(request: pytest.FixtureRequest, unique: str, tmp_path: Path) -> Iterator[Stand]:
    """Two shards, small services, the application; one shard may be in Neo4j, the other is in FalkorDB."""
    falkor = FalkorStore(request.getfixturevalue("falkor_server"), unique)
    first: GraphStore = request.getfixturevalue("neo4j_store") if request.param == "neo4j" else falkor
    made = Stand((first, falkor), tmp_path)
    yield made
    made.close()
