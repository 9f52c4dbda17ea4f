"""Commits to the lake on real Iceberg tables: positions, gaps, zombies, fsync, full disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import batch
from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, Unavailable
from cluster.stores import lake_entries, lake_files
from cluster.stores.lake import Lake, LakeEntry, PartitionPosition
from tests.cluster.stores.lake_records import LOG, data_files, entries, people, rows_of


def test_positions_are_kept_with_the_rows(lake: Lake, tmp_path: Path) -> None:
    at = lake.append([*entries(0, 1, [people(0, 3), people(3, 2)]), *entries(2, 1, [people(5, 4)])], LOG)
    assert at == LOG.advanced({0: PartitionPosition(2, 5), 2: PartitionPosition(1, 4)})
    at = lake.append(entries(0, 3, [people(9, 1)]), at)
    with Lake.open(tmp_path / "lake", create=False) as other:
        assert other.positions() == at
        assert at.records == 10
        assert sorted(rows_of(other)) == sorted(people(0, 10))


@pytest.mark.parametrize("number", [1, 3, 7])
def test_a_gap_is_refused(lake: Lake, number: int) -> None:
    at = lake.append(entries(0, 1, [people(0, 1)]), LOG)
    with pytest.raises(Corrupt, match="must follow each other"):
        lake.append(entries(0, number, [people(1, 1)]), at)
    assert lake.positions() == at


def test_another_schema_is_refused(lake: Lake) -> None:
    wrong = entries(0, 1, [people(0, 1)])[0].batch.rename_columns([f"x{i}" for i in range(len(batch.SCHEMA))])
    with pytest.raises(Corrupt, match="another schema"):
        lake.append([LakeEntry(0, 1, wrong)], LOG)


@pytest.mark.parametrize("first_commit", [True, False])
def test_a_zombie_lands_nowhere(lake: Lake, tmp_path: Path, first_commit: bool) -> None:
    """Two appenders read the same positions; the second to commit is refused, and nothing of it stays."""
    at = LOG if first_commit else lake.append(entries(0, 1, [people(0, 1)]), LOG)
    number = at.of(0).number + 1
    overtaken = []

    def overtake(step: str) -> None:
        if step == "lake.commit" and not overtaken:
            overtaken.append(lake.append(entries(0, number, [people(1, 2)]), at))

    with Lake.open(tmp_path / "lake", failpoint=overtake) as zombie:
        zombie.positions()
        with pytest.raises(Conflict, match="somebody else appended"):
            zombie.append(entries(0, number, [people(5, 2)]), at)
        with pytest.raises(Conflict):
            zombie.append(entries(0, number, [people(5, 2)]), at)
    assert lake.positions() == overtaken[0]
    assert {record.id for record in rows_of(lake)} & {"p00005", "p00006"} == set()
    assert len(data_files(lake)) == (1 if first_commit else 2)


def test_another_generation_refuses_who_began_in_the_one_before(lake: Lake, tmp_path: Path) -> None:
    at = lake.append(entries(0, 1, [people(0, 2)]), LOG)
    with Lake.open(tmp_path / "lake") as zombie:
        assert zombie.positions() == at
        reached = lake.begin_generation(LOG.log, 3)
        assert (reached.generation, reached.partitions, reached.log) == (3, at.partitions, at.log)
        assert reached.covers(at) and at.covers(reached)
        with pytest.raises(Conflict):
            zombie.append(entries(0, 2, [people(5, 1)]), at)
    assert lake.begin_generation(LOG.log, 3) == reached
    lake.append([LakeEntry(0, 2, batch.to_arrow([]), 1), *entries(0, 3, [people(2, 1)])], reached)
    assert [entry.batch.num_rows for entry in lake.entries(0, 0)] == [2, 0, 1]
    assert sorted(rows_of(lake)) == sorted(people(0, 3))
    lake.maintain(0.0)
    assert lake.positions().generation == 3


def test_an_empty_lake_is_marked_by_a_generation_too(lake: Lake, tmp_path: Path) -> None:
    with Lake.open(tmp_path / "lake") as zombie:
        assert zombie.positions().is_empty
        marked = lake.begin_generation(LOG.log, 3)
        assert (marked.is_empty, marked.log, marked.generation) == (True, LOG.log, 3)
        assert lake.begin_generation(LOG.log, 3) == marked
        for _ in range(2):
            with pytest.raises(Conflict):
                zombie.append(entries(0, 1, [people(5, 1)]), LOG)
    assert rows_of(lake) == []
    lake.maintain(0.0)
    reached = lake.append(entries(0, 1, [people(0, 2)]), marked)
    assert (reached.generation, lake.positions()) == (3, reached)
    assert sorted(rows_of(lake)) == sorted(people(0, 2))


def test_the_library_does_not_retry_by_itself(lake: Lake, tmp_path: Path) -> None:
    """Without the property below, the library would rebase a refused append and land it."""
    at = lake.append(entries(0, 1, [people(0, 1)]), LOG)
    with Lake.open(tmp_path / "lake") as zombie:
        frame = lake_entries.entries_frame(entries(0, 2, [people(5, 2)]), 1, lambda tenant: "default")
        files = lake_files.write_data_files(zombie._table, frame, None)
        lake.append(entries(0, 2, [people(1, 1)]), at)
        from pyiceberg.exceptions import CommitFailedException

        with pytest.raises(CommitFailedException):
            zombie._commit(files, at)
    assert zombie._table.properties["commit.retry.num-retries"] == "0"
    assert len(rows_of(lake)) == 2


def test_a_compaction_or_pin_in_between_is_no_conflict(lake: Lake, tmp_path: Path) -> None:
    """They move no position, so the append is tried again on the new version, once in effect."""
    at = LOG
    for number in range(1, 5):
        at = lake.append(entries(0, number, [people(number, 1)]), at)
    done: list[Any] = []

    def interfere(step: str) -> None:
        if step == "lake.commit" and not done:
            done.append(lake.maintain(0.0))
            done.append(lake.pin("reader", 0.0))

    with Lake.open(tmp_path / "lake", failpoint=interfere) as appender:
        lake._settings = LakeSettings(compact_files=2)
        at = appender.append(entries(0, 5, [people(5, 3)]), at)
        assert done[0].files_compacted == 4
        assert appender.positions() == at
    assert sorted(record.id for record in rows_of(lake)) == [f"p{i:05d}" for i in (1, 2, 3, 4, 5, 6, 7)]


def test_everything_is_fsynced_before_the_catalog_changes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[tuple[int, int]] = set()
    real, seen_at_update = os.fsync, []

    def fsync(handle: int) -> None:
        found = os.fstat(handle)
        synced.add((found.st_dev, found.st_ino))
        real(handle)

    def before_update(*arguments: object) -> None:
        files = set((lake.folder / "events").rglob("*"))
        seen_at_update.extend(p for p in files if (p.stat().st_dev, p.stat().st_ino) not in synced)
        seen_at_update.append(len(files))

    from sqlalchemy import event

    monkeypatch.setattr(os, "fsync", fsync)
    for folder in (lake.folder / "events").rglob("*"):
        synced.add((folder.stat().st_dev, folder.stat().st_ino))
    event.listen(
        lake._catalog.engine,
        "before_cursor_execute",
        lambda c, cur, statement, *rest: before_update() if statement.startswith("UPDATE") else None,
    )
    lake.append(entries(0, 1, [people(0, 3)]), LOG)
    counts = [found for found in seen_at_update if isinstance(found, int)]
    assert counts
    assert counts[0] > 5
    assert [found for found in seen_at_update if not isinstance(found, int)] == []


def test_a_version_of_another_program_is_named(lake: Lake) -> None:
    lake.append(entries(0, 1, [people(0, 5)]), LOG)
    lake._table.append(lake._table.scan().to_arrow())
    with pytest.raises(Corrupt, match="another program"):
        lake.positions()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=False).returncode
    ):
        pytest.skip("a small disk needs the right to mount one")
    yield lambda name: folder / name
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(small_disk: Callable[[str], Path]) -> None:
    with Lake.open(small_disk("lake")) as lake:
        at = lake.append(entries(0, 1, [people(0, 100)]), LOG)
        ballast = small_disk("ballast")
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(8 << 20))
        with pytest.raises(Unavailable, match="Free space"):
            lake.append(entries(0, 2, [people(100, 1000)]), at)
        assert lake.positions() == at
        assert len(rows_of(lake)) == 100
        ballast.unlink()
        lake.append(entries(0, 2, [people(100, 1000)]), at)
        assert len(rows_of(lake)) == 1100
