"""Who did what, from the command line: what `--as` promises is there to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.stores.control import open_control
from cluster.stores.control_audit import INSTALLATION
from serve_apps.cli.exits import Exit
from serve_apps.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state directory whose system is down."""
    open_control(f"sqlite:///{tmp_path / 'control.db'}").close()
    return tmp_path


def run(folder: Path, *words: str, exit_code: int = Exit.DONE) -> Any:
    done = RUNNER.invoke(app, [*words, "--state-dir", str(folder), "--json"])
    assert done.exit_code == exit_code, done.output
    return json.loads(done.stdout) if exit_code == Exit.DONE else None


def actions(folder: Path, tenant: str, *words: str) -> list[tuple[str, str, str]]:
    found = run(folder, "audit", "--actions", "-t", tenant, *words)["actions"]
    return [(x["actor"], x["action"], x["subject"]) for x in found]


def test_what_was_done_is_shown_with_who_did_it_to_its_own_tenant_alone(folder: Path) -> None:
    for tenant in ("acme", "beta"):
        run(folder, "sources", "register", "hr", "-t", tenant, "--as", "ann")
    run(folder, "sources", "kill", "hr", "-t", "acme", "--as", "ann")
    run(folder, "sources", "kill", "hr", "-t", "beta", "--as", "bob")
    assert actions(folder, "acme") == [("ann", "source.register", "hr"), ("ann", "source.kill", "hr")]
    assert actions(folder, "beta") == [("ann", "source.register", "hr"), ("bob", "source.kill", "hr")]
    assert actions(folder, "nobody") == []


def test_the_latest_come_over_pages(folder: Path) -> None:
    run(folder, "sources", "register", "hr", "-t", "acme")
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    for number in range(1_003):
        control.audit.append("acme", "ann", "source.kill", str(number), float(number))
    control.close()
    assert [subject for _, _, subject in actions(folder, "acme", "--limit", "4")] == ["999", "1000", "1001", "1002"]
    assert len(actions(folder, "acme", "--limit", "10000")) == 1_004


def test_actions_are_of_one_tenant_or_of_the_installation(folder: Path) -> None:
    run(folder, "sources", "register", "hr", "-t", "acme")
    run(folder, "sources", "kill", "hr", "-t", "acme", "--as", "ann")
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    control.audit.append(INSTALLATION, "ann", "shard.rebuild", "shard-0", 1.0)
    control.close()
    found = run(folder, "audit", "--actions")["actions"]
    assert [(x["actor"], x["action"], x["subject"]) for x in found] == [("ann", "shard.rebuild", "shard-0")]
    run(folder, "audit", "-t", "acme", exit_code=Exit.USAGE)


def test_a_token_that_was_made_is_told_and_not_shown(folder: Path) -> None:
    words = ("--scope", "read", "--scope", "ingest", "--source", "hr", "--subject", "ann")
    made = run(folder, "token", "-t", "acme", *words)
    (found,) = run(folder, "audit", "--actions", "-t", "acme")["actions"]
    assert (found["action"], found["subject"]) == ("token.issue", "ann")
    assert found["detail"] == {"scopes": ["ingest", "read"], "sources": ["hr"], "expires_in_s": 86_400}
    assert made["token"] not in json.dumps(found)
