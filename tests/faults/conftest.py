"""On which stack a fault run runs, and where processes come from that die in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Installation
from tests.faults.production import ProductionInstallation
from tests.forked import Forked

Install = Callable[..., Installation]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    """Where processes come from that are killed at a step (`tests.faults.dying`)."""
    with Forked(("tests.faults.dying",), dict(os.environ)) as found:
        yield found


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
