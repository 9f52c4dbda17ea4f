"""On which stack a fault run runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Installation
from tests.faults.production import ProductionInstallation

Install = Callable[..., Installation]


@pytest.fixture
def stack() -> str:
    """The name of the stack; tests give it by `seeds.on_stacks`."""
    return "embedded"


@pytest.fixture
def install(request: pytest.FixtureRequest, stack: str, server_root: Path) -> Install:
    """`install(name, **options)`: an installation of its own on that stack; skips the test where it cannot be had."""
    if stack == "embedded":
        return lambda name, **options: Installation(server_root / name, **options)
    service: Callable[[str], Any] = request.getfixturevalue("service")
    service("neo4j-0")
    service("neo4j-1")
    broker, services = (request.getfixturevalue(name) for name in ("mortal_kafka", "production"))
    request.getfixturevalue("ray_node")
    return lambda name, **options: ProductionInstallation(server_root / name, broker, services, **options)
