"""An empty control store and an empty lake of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores.control import ControlStore, open_control
from cluster.stores.lake import Lake


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A control store's file that has its tables, to be copied."""
    path = tmp_path_factory.mktemp("control") / "empty.db"
    open_control(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def url(migrated: Path, tmp_path: Path) -> str:
    """Where the control store of this test is."""
    shutil.copy(migrated, tmp_path / "control.db")
    return f"sqlite:///{tmp_path / 'control.db'}"


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    """An empty control store."""
    opened = open_control(url)
    yield opened
    opened.close()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An empty lake."""
    with Lake.open(tmp_path / "lake") as opened:
        yield opened
