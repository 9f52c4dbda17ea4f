"""Several processes that do the same thing to one store at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

SPAWN = multiprocessing.get_context("spawn")


def in_processes(count: int, target: Callable[..., None], *arguments: Any) -> None:
    """Runs `target(number, *arguments)` in `count` processes of their own, which have to end well."""
    workers = [SPAWN.Process(target=target, args=(n, *arguments)) for n in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
