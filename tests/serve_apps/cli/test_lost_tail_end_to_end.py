"""The log's files, then the control store's, are set back between `down` and `up`: made good, and the books balance."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve_apps.cli.installation import Installation, people, temporary

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

TENANT = "acme"


@pytest.fixture
def installation() -> Iterator[Installation]:
    with temporary() as made:
        yield made


def copied(folder: Path, aside: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(aside / name, ignore_errors=True)
        shutil.copytree(folder / name, aside / name)


def test_made_good_at_the_start(installation: Installation, tmp_path: Path) -> None:
    """A third of the facts is in the older copy of the log, a third in the lake, and a third in shards alone."""
    run, folder, aside = installation.run, installation.state_dir, tmp_path / "aside"
    run("up")
    run("ingest", people(tmp_path / "a.jsonl", 0, 200), "-t", TENANT, "--source", "a")
    copied(folder, aside, "servers/log/appendonlydir")  # fsynced at each append: a copy of this moment
    run("ingest", people(tmp_path / "b.jsonl", 200, 400), "-t", TENANT, "--source", "b")
    run("down")
    copied(folder, aside, "lake")
    shutil.copy(folder / "control.db", aside / "control.db")
    run("up")
    run("ingest", people(tmp_path / "c.jsonl", 400, 600), "-t", TENANT, "--source", "c")
    before = [run("hash", "-t", TENANT), run("hash", "--state")]
    run("down")
    copied(aside, folder, "servers/log/appendonlydir", "lake")

    assert any("generation 2" in note for note in run("up")["notes"])
    assert [run("hash", "-t", TENANT), run("hash", "--state")] == before
    assert run("audit")["holds"]
    assert run("status")["storage"][0]["log_generation"] == run("log", "show")["generation"] == 2
    assert run("log", "show")["seams"]
    run("ingest", people(tmp_path / "d.jsonl", 600, 700), "-t", TENANT, "--source", "d")
    assert run("audit")["holds"]
    said = {action["action"]: action["detail"] for action in run("audit", "--actions")["actions"]}
    assert said["log.generation_opened"]["lost"] == ""
    assert said["log.mended"]["facts_of_shards"] == {f"{TENANT}/c": 200}
    assert said["log.mended"]["entries_again"] > 0

    loads, shards = run("ingest", "list", "-t", TENANT), run("shards", "list")["shards"]
    actions, now = run("audit", "--actions"), run("hash", "--state")
    run("down")
    shutil.copy(aside / "control.db", folder / "control.db")  # from before the log was set back, and made good
    for name in ("control.db-wal", "control.db-shm"):
        (folder / name).unlink(missing_ok=True)
    assert any("older than the log" in note for note in run("up")["notes"])
    assert run("ingest", "list", "-t", TENANT) == loads
    assert run("audit", "--actions") == actions
    assert {s["id"]: s["epoch"] + 1 for s in shards} == {s["id"]: s["epoch"] for s in run("shards", "list")["shards"]}
    assert run("hash", "--state") == now
    run("ingest", people(tmp_path / "e.jsonl", 700, 750), "-t", TENANT, "--source", "e")
    assert run("audit")["holds"]
