"""The summary of a load for people: each outcome comes with a command that shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.stores.control_loads import Load
from serve_apps.cli.ingest import list_loads, show_summaries
from serve_apps.cli.loading import Summary
from serve_apps.cli.session import Session

LOOK, UNDO, LETTERS = "intelgraph query search --tenant acme", "intelgraph ingest undo load-1", "intelgraph dlq list"


@pytest.mark.parametrize(
    ("applied", "duplicate", "stale", "dead", "commands"),
    [
        (3, 0, 0, 0, {LOOK, UNDO}),
        (0, 3, 0, 0, {LOOK}),
        (0, 0, 3, 0, {LOOK}),
        (0, 0, 0, 3, {LETTERS}),
        (1, 1, 1, 1, {LOOK, UNDO, LETTERS}),
    ],
)
def test_each_outcome_has_a_way_to_be_seen(
    applied: int, duplicate: int, stale: int, dead: int, commands: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    acked = applied + duplicate + stale
    one = Summary("load-1", "a.csv", "acme", "hr", 1, acked, applied, duplicate, stale, dead, 0, 0, 0.1, 0.1)
    show_summaries(Session(), [one])
    told = capsys.readouterr().out
    assert {command for command in (LOOK, UNDO, LETTERS) if command in told} == commands


@pytest.mark.parametrize(("applied", "told"), [(5, False), (0, True)])
def test_records_whose_outcome_nobody_counted_are_told(
    applied: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load("load-1", "acme", "hr", 1, "d", "a.csv", {}, "done", 7, applied, 1, 1, 0, 0.0, 1.0)
    session = Session()
    stored = SimpleNamespace(loads=SimpleNamespace(list=lambda tenant, limit: [load]))
    monkey = cast(Any, session)
    monkey.__dict__["control"] = stored
    list_loads(session, "acme")
    out = capsys.readouterr()
    assert ("intelgraph audit" in out.out + out.err) is told
