"""Shards come in and go out on a running system that holds cases: what was there stays, what is new is spread."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cluster.stores.control import open_control
from tests.serve_apps.cli.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

TENANT = "spread"
CASES = 24
KILLED = """
import os, signal, sys
from pathlib import Path
from actors import ownership
from serve_apps.cli.session import Session

def failpoint(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

ownership.add_shard(Session(Path(sys.argv[1])).stack, 60.0, failpoint)
"""


@pytest.fixture
def up(installed: Installation) -> Installation:
    """The running system; what earlier tests have left in it stays."""
    installed.run("up")
    return installed


def facts(folder: Path, prefix: str) -> str:
    """A file of cases of two people who know each other."""
    lines = []
    for case in (f"{prefix}{n}" for n in range(CASES)):
        ends = {"from": {"type": "person", "id": "a"}, "to": {"type": "person", "id": "b"}}
        for id in "ab":
            lines.append({"case": case, "kind": "entity", "op": "upsert", "type": "person", "id": id, "props": {}})
        lines.append({"case": case, "kind": "relationship", "op": "upsert", "type": "knows", "id": "r", **ends})
    file = folder / f"{prefix}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def owned(installation: Installation) -> dict[str, int]:
    """Buckets by shard, of those that own any."""
    with closing(open_control(f"sqlite:///{installation.state_dir / 'control.db'}", 24)) as control:
        current = control.shard_maps.current()
    assert current is not None
    return dict(Counter(current.owners))


def cases_held(installation: Installation, shard: str) -> int:
    """Cases that a shard says it holds when it is asked to go: it has to refuse, and to say why."""
    refused = installation.run("shards", "drain", shard, exit_code=1)["error"]["message"]
    assert "cannot move cases" in refused
    return int(refused.split(" holds ")[1].split()[0].replace(",", ""))


def kill_at(step: str, installation: Installation) -> None:
    """`shards add`, killed before the next thing that it would do."""
    done = installation.python.run(KILLED, str(installation.state_dir), step, timeout_s=120)
    assert done.returncode == -9, (step, done.stderr)


def hashes(installation: Installation) -> list[dict[str, Any]]:
    return [installation.run("hash"), installation.run("hash", "--state")]


def test_a_shard_comes_in_is_killed_at_every_step_and_goes_out(up: Installation, tmp_path: Path) -> None:
    run = up.run
    run("ingest", facts(tmp_path, "old"), "-t", TENANT)
    before, had = hashes(up), owned(up)
    assert set(had) == {"shard-0", "shard-1"}
    for step in ("registered", "started", "paused", "planned"):
        kill_at(step, up)
        assert owned(up) == had, step
    kill_at("published", up)
    assert set(owned(up)) == {"shard-0", "shard-1", "shard-2"}
    assert owned(up)["shard-2"] > 1_000
    assert hashes(up) == before

    (load,) = run("ingest", facts(tmp_path, "new"), "-t", TENANT)["loads"]
    assert (load["acked"], load["applied"], load["missing"]) == (3 * CASES, 3 * CASES, 0)
    assert 0 < cases_held(up, "shard-2") < CASES
    cases = {case["case"] for case in run("query", "cases", "-t", TENANT)["items"]}
    assert cases == {f"{prefix}{n}" for prefix in ("old", "new") for n in range(CASES)}
    assert "shard-2" in {row["shard"] for row in run("lag")["lag"]}
    snapshot = run("snapshot", "create")
    assert snapshot["entities"] >= 2 * 2 * CASES
    assert run("snapshot", "verify")["whole"]
    assert run("overlay", "run", "pagerank", "-t", TENANT)["state"] == "published"
    assert run("audit")["holds"]  # it waits until the shards have the run's values
    whole = hashes(up)
    assert whole[0]["lines"] == before[0]["lines"] + 3 * CASES

    assert run("shards", "add")["shard"] == "shard-3"
    assert run("shards", "drain", "shard-3")["given"] > 500
    assert run("shards", "drain", "shard-3")["given"] == 0
    run("down")
    run("up")
    assert hashes(up) == whole
    assert run("audit")["holds"]
    status = run("status")
    assert {s["name"]: s["state"] for s in status["servers"]}["shard-3"] == "down"
    assert {s["id"]: s["serving"] for s in status["shards"]}["shard-3"] == "drained"
    writers = {actor["name"] for actor in status["actors"] if actor["name"].startswith("shard-writer:")}
    assert writers == {f"shard-writer:shard-{n}" for n in range(3)}
    assert run("shards", "add")["shard"] == "shard-3", "a shard that was drained comes back"
