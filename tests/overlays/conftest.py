"""A control store of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores.control import ControlStore, open_control


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    """An empty control store."""
    store = open_control(f"sqlite:///{tmp_path}/control.db")
    yield store
    store.close()
