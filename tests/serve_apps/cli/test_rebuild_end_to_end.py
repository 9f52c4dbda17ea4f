"""A shard is rebuilt and facts are replayed by command on a running system: nothing changes, and the books balance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.serve_apps.cli.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

TENANT = "rebuilt"
CASES, PEOPLE = 12, 20


@pytest.fixture
def up(installed: Installation, tmp_path: Path) -> Installation:
    """The running system with facts of this test's tenant; what earlier tests have left in it stays."""
    file = tmp_path / "people.jsonl"
    events = [
        {"case": f"c{case}", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{n}", "props": {"n": n}}
        for case in range(CASES)
        for n in range(PEOPLE)
    ]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    installed.run("up")
    installed.run("ingest", str(file), "-t", TENANT, "--source", "crm")
    return installed


def test_rebuilt_and_replayed(up: Installation) -> None:
    run = up.run
    before = [run("hash", "-t", TENANT), run("hash", "--state")]
    for shard in ("shard-0", "shard-1"):
        done = run("shards", "rebuild", shard, "--verify", "--as", "ann")
        assert (done["behind"], done["verified"], done["saved"]) == ([], True, True)
        assert done["lines"]
    assert [run("hash", "-t", TENANT), run("hash", "--state")] == before
    assert run("audit")["holds"]
    said = [(x["actor"], x["action"], x["subject"]) for x in run("audit", "--actions")["actions"]]
    assert [x for x in said if x[1] == "shard.rebuilt"] == [("ann", "shard.rebuilt", s) for s in ("shard-0", "shard-1")]

    chosen = ("replay", "-t", TENANT, "--source", "crm")
    counted = run(*chosen, "--dry-run")
    assert (counted["records"], counted["by_type"], counted["outcomes"]) == (CASES * PEOPLE, {"person": 240}, None)
    for _ in range(2):
        done = run(*chosen)
        assert (done["records"], done["behind"]) == (CASES * PEOPLE, 0)
        assert done["outcomes"] == {"applied": 0, "duplicate": CASES * PEOPLE, "stale": 0}
    one = run("replay", "-t", TENANT, "--case", "c3", "--type", "person", "--id", "p7")
    assert (one["records"], one["outcomes"]["duplicate"]) == (1, 1)
    assert run("replay", "-t", TENANT, "--until", "2001-01-01", "--dry-run")["records"] == 0
    assert [run("hash", "-t", TENANT), run("hash", "--state")] == before
    assert run("audit")["holds"]


def test_written_wrongly(up: Installation) -> None:
    wrong = (
        ("replay",), ("replay", "-t", TENANT, "--all-tenants"), ("replay", "-t", TENANT, "--since", "yesterday"),
        ("replay", "-t", TENANT, "--source", "crm", "--from-position", "1,x"),
    )  # fmt: skip
    for words in wrong:
        assert up.run(*words, exit_code=2)["error"]["kind"] == "usage"
    assert "--source" in up.run("replay", "-t", TENANT, "--to-position", "4", exit_code=1)["error"]["message"]
    assert up.run("shards", "rebuild", "shard-9", exit_code=1)["error"]["kind"] == "not_found"
