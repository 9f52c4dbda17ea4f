"""One Ray node of two cores for the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="session")
def ray_node() -> Iterator[None]:
    """A running node; whoever started it stops it."""
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="tests")
    yield
    if started:
        ray.shutdown()
