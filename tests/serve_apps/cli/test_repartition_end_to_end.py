"""The log gets another number of partitions between `down` and `up`; all is as with that number from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve_apps.cli.installation import Installation, temporary
from tests.serve_apps.cli.test_lost_tail_end_to_end import people

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

TENANT = "acme"


def ingested(installation: Installation, path: str) -> dict[str, int]:
    (load,) = installation.run("ingest", path, "-t", TENANT, "--source", "hr")["loads"]
    return {name: load[name] for name in ("applied", "duplicate", "stale", "dead", "missing")}


def hashes(installation: Installation) -> list[object]:
    return [installation.run("hash", "-t", TENANT), installation.run("hash", "--state")]


@pytest.mark.parametrize("number", [3, pytest.param(8, marks=pytest.mark.chaos)])
def test_as_with_that_number_from_the_start(tmp_path: Path, number: int) -> None:
    first, second = people(tmp_path / "a.jsonl", 0, 300), people(tmp_path / "b.jsonl", 200, 500)
    with temporary("LOG", PARTITIONS="4") as before:
        before.run("up")
        new = {"applied": 300, "duplicate": 0, "stale": 0, "dead": 0, "missing": 0}
        assert ingested(before, first) == new
        was = hashes(before)
        before.run("down")

        after = Installation(before.state_dir, INTELGRAPH__LOG__PARTITIONS=str(number))
        with after.python:
            refused = after.run("up", exit_code=1)["error"]["message"]
            assert f"has 4 partitions, and log.partitions is {number}: set it to 4" in refused
            assert f"say `intelgraph log repartition {number}`" in refused
            after.run("log", "repartition", str(number))
            assert any(f"{number} partitions now: generation 2" in note for note in after.run("up")["notes"])
            assert hashes(after) == was
            assert ingested(after, first) == {**new, "applied": 0, "duplicate": 300}
            ingested(after, second)
            shown = after.run("log", "show")
            assert (shown["partitions"], len(shown["ends"])) == (number, max(number, 4))
            assert after.run("audit")["holds"]
            assert after.run("lag")["records"] == 0
            snapshot = after.run("snapshot", "create")
            assert after.run("snapshot", "verify")["whole"]
            changed = hashes(after)
            after.run("down")
    assert snapshot
    with temporary("LOG", PARTITIONS=str(number)) as other:
        other.run("up")
        ingested(other, first)
        ingested(other, second)
        assert hashes(other) == changed
