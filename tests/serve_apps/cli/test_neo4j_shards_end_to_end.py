"""A Neo4j comes into a running installation, holds cases beside an embedded shard, and is given back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.graph_stores import Neo4jStore
from tests.serve_apps.cli.installation import Installation, temporary

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(600)]
CASES = 12


@pytest.fixture
def uri(service: Callable[[str], Any], neo4j_store: Neo4jStore) -> str:
    """The address of an empty database whose certificate is checked."""
    neo4j_store.fresh()
    return str(service("neo4j-0").address).replace("+ssc", "+s")


@pytest.fixture
def installation(
    service: Callable[[str], Any], uri: str, neo4j_store: Neo4jStore, tmp_path: Path
) -> Iterator[Installation]:
    """One embedded shard; what a Neo4j wants is in its settings."""
    details = service("neo4j-0").details
    (tmp_path / "password").write_text(details["password"])
    with temporary(
        "SHARDS", EMBEDDED="1", NEO4J_PASSWORD_FILE=str(tmp_path / "password"), NEO4J_CA_FILE=str(details["ca"])
    ) as made:
        yield made
    neo4j_store.fresh()


def facts(folder: Path) -> str:
    """A file of cases of two people who know each other."""
    ends = {"from": {"type": "person", "id": "a"}, "to": {"type": "person", "id": "b"}}
    lines: list[dict[str, Any]] = []
    for case in range(CASES):
        common = {"case": f"c{case}", "op": "upsert"}
        lines += [{**common, "kind": "entity", "type": "person", "id": id, "props": {}} for id in "ab"]
        lines.append({**common, "kind": "relationship", "type": "knows", "id": "r", **ends})
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def test_it_is_added_fills_and_goes(installation: Installation, uri: str, tmp_path: Path) -> None:
    run = installation.run
    run("up")
    secret = run("shards", "add", uri.replace("//", "//neo4j:hunter2@"), exit_code=1)
    assert "hunter2" not in json.dumps(secret)
    assert run("shards", "add", uri)["shard"] == "neo4j-0"
    again = run("shards", "add", uri.replace("127.0.0.1", "localhost"), "--id", "other", exit_code=1)
    assert "is shard neo4j-0 of this installation already" in again["error"]["message"]
    assert run("shards", "add", uri)["shard"] == "neo4j-0", "said twice, nothing changes"
    listed = {row["id"]: (row["kind"], row["buckets"]) for row in run("shards", "list")["shards"]}
    assert listed == {"shard-0": ("embedded", 2048), "neo4j-0": ("neo4j", 2048)}
    assert run("shards", "drain", "neo4j-0")["given"] == 2048
    assert run("shards", "add", uri)["buckets"] == 2048

    (load,) = run("ingest", facts(tmp_path), "-t", "acme")["loads"]
    assert (load["applied"], load["missing"]) == (3 * CASES, 0)
    assert "holds" in run("shards", "drain", "neo4j-0", exit_code=1)["error"]["message"]
    assert run("audit")["holds"]
    assert run("hash")["lines"] == 3 * CASES
