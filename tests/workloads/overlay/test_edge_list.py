"""Graphs from edge lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workloads.overlay.edge_list import EdgeListInput, prepare

NAMES = [("org", "x"), ("person", "a"), ("person", "b")]


def source(folder: Path, names: list[tuple[str, str]] = NAMES) -> EdgeListInput:
    graph = prepare(np.array([0, 1]), np.array([1, 2]), 3, folder)
    return EdgeListInput("acme", "s1", "2026-01-01T00:00:00Z", graph, names, {"c2": [2], "c1": [0, 2]})


def test_names_and_cases(tmp_path: Path) -> None:
    made = source(tmp_path)
    assert made.keys(np.array([2, 0])) == [("person", "b"), ("org", "x")]
    assert made.find([("person", "b"), ("person", "z"), ("a", "a")]).tolist() == [2, -1, -1]
    cases, case, vertex = made.membership()
    assert [(cases[c], v) for c, v in zip(case.tolist(), vertex.tolist(), strict=True)] == [
        ("c1", 0),
        ("c1", 2),
        ("c2", 2),
    ]


@pytest.mark.parametrize("names", [NAMES[:2], [NAMES[1], NAMES[0], NAMES[2]], [NAMES[0], NAMES[0], NAMES[1]]])
def test_names_have_to_be_in_order(tmp_path: Path, names: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="3 distinct names"):
        source(tmp_path, names)


def test_ends_outside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside"):
        prepare(np.array([0]), np.array([3]), 3, tmp_path)
