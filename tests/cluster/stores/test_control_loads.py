from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores.control import ControlStore, open_control


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    opened.close()


@pytest.mark.parametrize("page", [1, 2, 5, 100])
def test_every_load_of_a_tenant_comes_once_however_they_are_read(store: ControlStore, page: int) -> None:
    started: dict[str, set[str]] = {}
    for tenant in ("t", "u"):
        store.sources.register(tenant, "s", 0.0)
        started[tenant] = {store.loads.start(tenant, "s", f"digest-{n}", 0.0).id for n in range(5)}
    found = [load.id for load in store.loads.every("t", page)]
    assert len(found) == 5
    assert set(found) == started["t"]
    assert list(store.loads.every("nobody", page)) == []
