"""Seconds of each stage of a run, so that load, mapping, solve and write are reported apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

FIXED = ("pool", "plan")
"""Stages whose time does not grow with the graph: actors, compiled code, footers."""


class Stages:
    """A stopwatch; a stage that is measured twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage, also when the block raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def fixed_s(seconds: dict[str, float]) -> float:
    """What a run costs whatever its size, seconds."""
    return sum(spent for name, spent in seconds.items() if name in FIXED)
