"""The summary of a load for people: each outcome comes with a command that shows it."""

from __future__ import annotations

import pytest

from serve_apps.cli.ingest import show_summaries
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
