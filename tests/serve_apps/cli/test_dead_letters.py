"""Dead letters at the command line, of a system that is down: filters, what there is, what cannot be said together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.stores.control import open_control
from cluster.stores.control_dead_letters import NewDeadLetter
from serve_apps.cli.exits import Exit
from serve_apps.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five letters of two types; two of them were tried once."""
    control = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    letters = [NewDeadLetter("hr", 1, (n,), "schema", "x", b"{}", type=f"t{n % 2}") for n in range(5)]
    control.dead_letters.add("acme", letters, 0.0)
    control.dead_letters.begin_replay("acme", [x.id for x in control.dead_letters.list("acme", limit=2)], 5, 1.0)
    control.close()
    return tmp_path


def listed(folder: Path, *words: str) -> dict[str, Any]:
    done = RUNNER.invoke(app, ["dlq", "list", "-t", "acme", *words, "--state-dir", str(folder), "--json"])
    assert done.exit_code == Exit.DONE, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        ((), [0, 1, 2, 3, 4]), (("--type", "t1"), [1, 3]), (("--attempts", "1"), [0, 1]),
        (("--attempts", "0"), [2, 3, 4]),
        (("--type", "t0", "--attempts", "0"), [2, 4]), (("--type", "t2"), []),
    ],
)  # fmt: skip
def test_letters_are_chosen_by_type_and_attempts(folder: Path, words: tuple[str, ...], positions: list[int]) -> None:
    assert [letter["position"] for letter in listed(folder, *words)["dead_letters"]] == [[n] for n in positions]


def test_how_many_there_are_is_told_of_all(folder: Path) -> None:
    facets = listed(folder, "--type", "t1")["facets"]
    assert (facets["type"], facets["attempts"]) == ({"t0": 3, "t1": 2}, {"0": 3, "1": 2})
    text = RUNNER.invoke(app, ["dlq", "list", "-t", "acme", "--state-dir", str(folder)]).output
    assert "0: 3, 1: 2" in text


@pytest.mark.parametrize("option", [("--type", "t0"), ("--attempts", "0")])
def test_filters_choose_among_all_not_among_those_named(folder: Path, option: tuple[str, str]) -> None:
    words = ["dlq", "replay", "some-id", "-t", "acme", *option, "--state-dir", str(folder), "--json"]
    assert RUNNER.invoke(app, words).exit_code == Exit.USAGE


def test_what_of_a_letter_breaks_which_rule_is_shown(folder: Path) -> None:
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    control.sources.register("acme", "hr", 0.0)
    control.close()
    id = listed(folder)["dead_letters"][0]["id"]
    words = ["dlq", "show", id, "-t", "acme", "--state-dir", str(folder)]
    held = json.loads(RUNNER.invoke(app, [*words, "--json"]).stdout)["held"]
    assert held["against"] == "the rules of an event"
    assert [one["path"] for one in held["findings"]] == ["/case", "/kind", "/op", "/type", "/id"]
    shown = RUNNER.invoke(app, words).output
    assert "held against the rules of an event" in shown
    assert "missing: every event has one" in shown
