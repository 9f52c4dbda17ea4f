"""Entities for people: what two sources say of one thing can be told apart."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from serve_apps.cli.output import exact
from serve_apps.cli.query import show_entity
from serve_apps.cli.session import Session

DIFFERENT: tuple[Any, ...] = (
    None, True, "true", 1, 1.0, "1", 1.001, 1.002, 1234, "1,234", 1e-9, 2e-9, "1e-9", "yes", "null", '"1"',
    ["a"], '["a"]', [1], [1.0], "", " ",
)  # fmt: skip


def test_equal_texts_are_equal_values() -> None:
    for one, other in combinations(DIFFERENT, 2):
        assert exact(one) != exact(other), (one, other)


def test_ordinary_texts_stand_as_they_are() -> None:
    for text in ("Ann", "c:\\x", '{"a":1}', "=cmd|calc", "10.0.0.1", "é"):
        assert exact(text) == text
    assert exact("9" * 5_000) == "9" * 199 + "…"
    assert exact("[" * 5_000) == "[" * 199 + "…"


def test_what_sources_say_side_by_side_and_of_claims(capsys: pytest.CaptureFixture[str]) -> None:
    sources = [
        {"source": name, "epoch": 1, "position": [0], "live": True, "props": {"score": score}}
        for name, score in (("left", 1.001), ("right", 1.002))
    ]
    claim = {"predicate": "risk", "value": 0.8449, "confidence": 0.999, "sources": sources[:1]}
    show_entity(Session(), {
        "case": "c", "type": "host", "id": "h", "props": {"score": 1.001}, "sources": sources, "claims": [claim],
        "overlays": {},
    })  # fmt: skip
    told = capsys.readouterr().out
    assert told.count("1.001") == 2
    assert told.count("1.002") == 1
    assert "0.8449" in told
    assert "0.999" in told
