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


@pytest.mark.parametrize("number", [3, 8])
def test_as_with_that_number_from_the_start(tmp_path: Path, number: int) -> None:
    first, second = people(tmp_path / "a.jsonl", 0, 300), people(tmp_path / "b.jsonl", 200, 500)
    with temporary("LOG", PARTITIONS="4") as before:
        assert before.run("up")["notes"] == []
        new = {"applied": 300, "duplicate": 0, "stale": 0, "dead": 0, "missing": 0}
        assert ingested(before, first) == new
        was = hashes(before)
        before.run("log", "repartition", str(number))
        before.run("down")

        after = Installation(before.state_dir, INTELGRAPH__LOG__PARTITIONS=str(number))
        with after.python:
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


def test_a_changed_setting_alone_is_refused(tmp_path: Path) -> None:
    with temporary("LOG", PARTITIONS="4") as before:
        before.run("up")
        ingested(before, people(tmp_path / "a.jsonl", 0, 20))
        before.run("down")
        after = Installation(before.state_dir, INTELGRAPH__LOG__PARTITIONS="8")
        with after.python:
            refused = after.run("up", exit_code=1)["error"]["message"]
            assert "has 4 partitions, and log.partitions is 8: set it to 4" in refused
            assert "say `intelgraph log repartition 8`" in refused
            same = after.run("log", "repartition", "4", exit_code=1)["error"]["message"]
            assert "4 partitions already" in same
            after.run("log", "repartition", "8")
            assert after.run("up")["notes"]
            assert after.run("log", "show")["partitions"] == 8
            after.run("down")
