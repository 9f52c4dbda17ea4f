"""Runs one compiled kernel over several ranges at once, on plain threads.

Kernels are compiled with `nogil=True` and write to disjoint ranges, so the outcome never depends on scheduling.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Sweep(Protocol):
    """Calls `kernel(item)` for every item and returns when all have returned."""

    def __call__(self, kernel: Callable[[Item], None], items: Sequence[Item]) -> None: ...


def usable_cores() -> int:
    """Cores that this process may run on (its affinity, where the platform tells it)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def sweeper(threads: int | None = None) -> Iterator[Sweep]:
    """Yield a `Sweep` and stop its threads afterwards.

    threads: how many at once; None takes `usable_cores()`. The first error of a kernel is raised.
    """
    count = usable_cores() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    if count == 1:
        yield one_by_one
        return
    with ThreadPoolExecutor(count, thread_name_prefix="kernel") as pool:

        def sweep(kernel: Callable[[Item], None], items: Sequence[Item]) -> None:
            for _ in pool.map(kernel, items):
                pass

        yield sweep


def one_by_one(kernel: Callable[[Item], None], items: Sequence[Item]) -> None:
    """The `Sweep` without threads."""
    for item in items:
        kernel(item)
