"""An installation whose lake and snapshots lie in S3: all works, is there after a restart, and no secret shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_bucket import S3Bucket
from tests.serve_apps.cli.installation import Installation, temporary
from tests.serve_apps.cli.test_neo4j_shards_end_to_end import CASES, facts

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def installation(bucket: S3Bucket) -> Iterator[Installation]:
    settings = {
        f"INTELGRAPH__{section}__{name.upper()}": str(value)
        for section, part in (("LAKE", "lake"), ("SNAPSHOTS", "snapshots"))
        for name, value in bucket.values(part).items()
    }
    with temporary() as made:
        made.environment.update(settings)
        yield made


def waiting(installation: Installation, number: int) -> dict[str, Any]:
    """What `status` says once the lake has so many entries."""
    deadline = time.monotonic() + 60
    while True:
        (storage,) = installation.run("status")["storage"]
        if storage["lake_entries"] >= number or time.monotonic() > deadline:
            return dict(storage)
        time.sleep(0.5)


def test_lake_and_snapshots_in_s3(installation: Installation, bucket: S3Bucket, tmp_path: Path) -> None:
    run = installation.run
    run("up")
    (load,) = run("ingest", facts(tmp_path), "-t", "acme")["loads"]
    assert (load["applied"], load["missing"]) == (3 * CASES, 0)
    first = run("snapshot", "create")
    assert (first["entities"], first["relationships"]) == (2 * CASES, CASES)
    assert run("snapshot", "verify")["whole"]
    assert run("overlay", "run", "pagerank", "-t", "acme")["state"] == "published"
    assert run("audit")["holds"]

    bucket.kill()
    (again,) = run("ingest", facts(tmp_path), "-t", "other")["loads"]
    assert (again["applied"], again["missing"]) == (3 * CASES, 0), "cases are served and take records"
    assert "does not answer" in run("snapshot", "create", "--timeout", "5", exit_code=3)["error"]["message"]
    (storage,) = run("status")["storage"]
    assert storage["snapshot"] == "no answer"
    bucket.start()
    entries = run("status")["storage"][0]["log_entries"]
    assert waiting(installation, entries)["lake_lag_entries"] == 0

    run("down")
    run("up")
    second = run("snapshot", "create", "--keep", "1")
    assert (second["parent"], second["removed"]) == (first["snapshot"], [first["snapshot"]])
    assert (second["entities"], run("audit")["holds"]) == (4 * CASES, True)
    assert [row["snapshot"] for row in run("snapshot", "list")["snapshots"]] == [second["snapshot"]]
    run("down")

    state = installation.state_dir
    assert not list(state.rglob("*.parquet")) or all("overlays" in path.parts for path in state.rglob("*.parquet"))
    assert any(name.endswith(".parquet") for name in bucket.files("lake"))
    secret = bucket.server.details["password"].encode()
    shown = [path for path in state.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert shown == [], "the secret is in no file"
    assert "does not answer" in (state / "node.log").read_text()
    assert json.dumps(second)
