"""Which runs are short, for `make test`, and which are those of `make chaos`."""

from __future__ import annotations

from typing import Any

import pytest


def is_long(seed: int, short: int = 1) -> bool:
    """Whether a run is one of `make chaos`: with 20,000 events, and held against the bounds in seconds."""
    return seed > short


def seeds(short: int, long: int) -> list[Any]:
    """Parameters of a run: the first seeds in `make test`, those up to `long` under the marker `chaos`."""
    marks = [() if seed <= short else (pytest.mark.chaos,) for seed in range(1, short + long + 1)]
    return [pytest.param(seed, id=f"seed{seed}", marks=mark) for seed, mark in enumerate(marks, 1)]


def on_stacks(short: int, long: int) -> list[Any]:
    """The same as (stack, seed) for the embedded parts, and the long ones on production's, too."""
    embedded = [pytest.param("embedded", *one.values, id=one.id, marks=one.marks) for one in seeds(short, long)]
    marks = (pytest.mark.production, pytest.mark.chaos)
    others = [
        pytest.param("production", seed, id=f"production-seed{seed}", marks=marks)
        for seed in range(short + 1, short + long + 1)
    ]
    return embedded + others
