"""The log's files are set back between `down` and `up`: made good by the start, said, and the books balance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve_apps.cli.installation import Installation, temporary

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

TENANT = "acme"
SET_BACK = ("servers/log/appendonlydir", "lake")


@pytest.fixture
def installation() -> Iterator[Installation]:
    with temporary() as made:
        yield made


def people(path: Path, first: int, last: int) -> str:
    events = [
        {"case": f"c{n % 9}", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{n}", "props": {"n": n}}
        for n in range(first, last)
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return str(path)


def copied(folder: Path, aside: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(aside / name, ignore_errors=True)
        shutil.copytree(folder / name, aside / name)


def test_made_good_at_the_start(installation: Installation, tmp_path: Path) -> None:
    run, folder, aside = installation.run, installation.state_dir, tmp_path / "aside"
    run("up")
    run("ingest", people(tmp_path / "a.jsonl", 0, 200), "-t", TENANT, "--source", "a")
    run("down")
    copied(folder, aside, *SET_BACK)
    run("up")
    run("ingest", people(tmp_path / "b.jsonl", 200, 400), "-t", TENANT, "--source", "b")
    before = [run("hash", "-t", TENANT), run("hash", "--state")]
    run("down")

    copied(aside, folder, SET_BACK[0])  # the lake has what the log lacks
    assert any("generation 2" in note for note in run("up")["notes"])
    assert [run("hash", "-t", TENANT), run("hash", "--state")] == before
    assert run("audit")["holds"]
    assert run("status")["storage"][0]["log_generation"] == run("log", "show")["generation"] == 2
    run("down")

    copied(aside, folder, *SET_BACK)  # shards alone have it
    assert any("generation 3" in note for note in run("up")["notes"])
    assert [run("hash", "-t", TENANT), run("hash", "--state")] == before
    assert run("audit")["holds"]
    assert run("log", "show")["seams"]
    run("ingest", people(tmp_path / "c.jsonl", 400, 500), "-t", TENANT, "--source", "c")
    assert run("audit")["holds"]
    said = [action["action"] for action in run("audit", "--actions")["actions"]]
    assert said.count("log.generation_opened") == said.count("log.mended") == 2
