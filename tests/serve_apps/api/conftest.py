"""The API over two real shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Running
from tests.serve_apps.api.stand import Stand


@pytest.fixture
def stand(falkor_server: Running, unique: str, tmp_path: Path) -> Iterator[Stand]:
    """Two shards, small services, the application."""
    made = Stand(falkor_server, unique, tmp_path)
    yield made
    made.close()
