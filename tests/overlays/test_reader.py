"""Reading what overlays have found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import NotFound
from cluster.stores.control import ControlStore
from overlays.reader import OverlayValues
from overlays.refresh import refresh
from tests.overlays.facts import (
    AS_OF,
    BACKEND,
    FIRST,
    IN_CASES,
    NOW,
    PEOPLE,
    TENANT,
    MemoryLog,
    around,
    scoring,
    source,
)


def test_reading_the_top(control: ControlStore, tmp_path: Path) -> None:
    surroundings = around(control, MemoryLog(), tmp_path, top_k=3)
    reader = OverlayValues(control.runs, tmp_path, surroundings.settings.overlays, lambda: NOW)
    with pytest.raises(NotFound, match="no published run: run it"):
        reader.top(TENANT, "pagerank", None, 10)
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    whole = reader.top(TENANT, "pagerank", None, 2)
    assert [item["id"] for item in whole["items"]] == ["a", "b"]
    assert (whole["asOf"], whole["run"], whole["stale"]) == (AS_OF, 1, True)
    part = reader.top(TENANT, "pagerank", "c2", 10)
    assert [(item["rank"], item["id"], item["score"]) for item in part["items"]] == [
        (1, "c", 0.2),
        (2, "d", 0.1),
        (3, "e", 0.0),
    ]
    assert reader.top(TENANT, "pagerank", "nowhere", 10)["items"] == []
    with pytest.raises(NotFound, match="no published run"):
        reader.top("other", "pagerank", None, 10)
    json.dumps(whole)
