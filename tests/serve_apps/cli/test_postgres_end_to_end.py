"""An installation whose control store is in PostgreSQL: up, down, and set back to an older copy between the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from tests.serve_apps.cli.installation import Installation, people, temporary

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(900)]
TENANT = "acme"


@pytest.fixture
def installation(postgres: PostgresServer, unique: str) -> Iterator[Installation]:
    """Its database is there and empty."""
    postgres.create(unique)
    at = postgres.service.details
    with temporary(
        "CONTROL", KIND="postgresql", HOST=at["host"], PORT=at["port"], DATABASE=unique, USER=at["user"],
        PASSWORD=at["password"], TLS="disable",
    ) as made:  # fmt: skip
        yield made
    postgres.drop(unique)
    postgres.drop(f"{unique}b")


def test_up_down_and_set_back(
    installation: Installation, postgres: PostgresServer, unique: str, tmp_path: Path
) -> None:
    run, folder = installation.run, installation.state_dir
    run("up")
    run("ingest", people(tmp_path / "a.jsonl", 0, 200), "-t", TENANT, "--source", "a")
    run("down")
    postgres.create(f"{unique}b", unique)
    run("up")
    with postgres.connected() as connection:
        query = "SELECT application_name FROM pg_stat_activity WHERE datname = %s"
        sessions = [name for (name,) in connection.execute(query, (unique,)) if name.startswith("intelgraph node on")]
    assert len(sessions) == 1, "the node keeps others off the store"
    (load,) = run("ingest", people(tmp_path / "b.jsonl", 100, 300), "-t", TENANT, "--source", "b")["loads"]
    assert (load["acked"], load["applied"]) == (200, 200)
    assert run("audit")["holds"]
    before = [run("hash", "-t", TENANT), run("hash", "--state"), run("ingest", "list", "-t", TENANT)]
    run("down")

    postgres.create(unique, f"{unique}b")
    assert any("older than the log" in note for note in run("up")["notes"])
    assert [run("hash", "-t", TENANT), run("hash", "--state"), run("ingest", "list", "-t", TENANT)] == before
    (again,) = run("ingest", people(tmp_path / "a2.jsonl", 0, 200), "-t", TENANT, "--source", "a")["loads"]
    assert (again["duplicate"], again["applied"]) == (200, 0)
    assert run("audit")["holds"]
    run("down")  # its files come and go while it works
    assert not (folder / "control.db").exists()
    password = postgres.service.details["password"].encode()
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sock"]
    assert written
    assert [path for path in written if password in path.read_bytes()] == [], "the password is in no file"
