"""The embedded system through the command line: up, ingest, duplicates, undo, audit, down, and up again unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.servers import wait_until
from tests.serve_apps.cli.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(600)]

PEOPLE = "email,name\nann@example.org,Ann\nbob@example.org,Bob\ncy@example.org,Cy\n"
FACTS = """\
{"case":"c1","kind":"entity","op":"upsert","type":"person","id":"ann@example.org","props":{"name":"Anna"}}
{"case":"c1","kind":"relationship","op":"upsert","type":"knows","id":"r1",\
"from":{"type":"person","id":"ann@example.org"},"to":{"type":"person","id":"bob@example.org"}}
this is no JSON
"""
MAPPED = ("--map", "type=person", "--map", "id={email}", "--map", "props=name,email", "-c", "c1")


def outcomes(load: dict[str, Any]) -> tuple[int, ...]:
    return tuple(load[name] for name in ("acked", "applied", "duplicate", "stale", "dead", "missing"))


def test_from_up_to_up_again(installed: Installation, tmp_path: Path) -> None:
    run = installed.run
    people, facts = tmp_path / "people.csv", tmp_path / "facts.jsonl"
    people.write_text(PEOPLE)
    facts.write_text(FACTS)

    assert run("up")["phase"] == "ready"
    assert run("up", typed=True)["already_up"]
    empty = run("hash")["sha256"]

    (preview,) = run("ingest", str(people), "-t", "acme", *MAPPED, "--dry-run")["dry_run"]
    assert (preview["records"], preview["dead"]) == (3, {})
    assert run("hash")["sha256"] == empty

    (first,) = run("ingest", str(people), "-t", "acme", *MAPPED)["loads"]
    assert outcomes(first) == (3, 3, 0, 0, 0, 0)
    dumps = [installed.state_dir / "servers" / f"shard-{n}" / "dump.rdb" for n in range(2)]
    wait_until(lambda: all(dump.exists() for dump in dumps), 30.0, "checkpoints")
    backup = [dump.read_bytes() for dump in dumps]
    (second,) = run("ingest", str(facts), "-t", "acme", exit_code=4)["loads"]
    assert outcomes(second) == (2, 2, 0, 0, 1, 0)
    (again,) = run("ingest", str(people), "-t", "acme", *MAPPED)["loads"]
    assert outcomes(again) == (3, 0, 3, 0, 0, 0)

    ann = run("query", "entity", "c1", "person", "ann@example.org", "-t", "acme")
    assert {s["source"]: s["props"]["name"] for s in ann["sources"]} == {"facts": "Anna", "people": "Ann"}
    assert [letter["payload"] for letter in run("dlq", "list", "-t", "acme")["dead_letters"]] == ["this is no JSON"]

    run("ingest", "undo", first["load"], "-t", "acme")
    left = run("query", "entity", "c1", "person", "ann@example.org", "-t", "acme")
    assert left["props"] == {"name": "Anna"}
    run("query", "entity", "c1", "person", "cy@example.org", "-t", "acme", exit_code=1)

    audit = run("audit")
    assert audit["holds"]
    assert sum(p["logged"] for p in audit["partitions"]) == sum(s["records"] for s in audit["shards"]) > 0

    hashes = [run("hash"), run("hash", "--state")]
    assert run("down")["stopped"]
    run("status", exit_code=3, typed=True)
    for dump, older in zip(dumps, backup, strict=True):
        assert dump.read_bytes() != older
        dump.write_bytes(older)  # restored from the backup that was taken while the system was at work
    assert run("up")["phase"] == "ready"
    assert run("audit")["holds"]  # it waits until the shards have what the log has
    assert [run("hash"), run("hash", "--state")] == hashes
