"""The lake is compacted, expired and cleaned; what somebody reads or is about to commit stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import LakeSettings
from cluster.errors import NotFound, Rejected
from cluster.stores import lake_entries, lake_files
from cluster.stores.lake import Lake, PartitionPosition
from tests.cluster.stores.lake_records import LOG, data_files, entries, people, rows_of


def test_compaction_and_expiry(lake: Lake) -> None:
    lake._settings = LakeSettings(compact_files=10, keep_metadata=3)
    at = LOG
    for number in range(1, 16):
        at = lake.append(entries(number % 2, (number + 1) // 2, [people(number * 10, 4)]), at)
    before = sorted(rows_of(lake))
    first = lake.maintain(0.0)
    assert first.files_compacted == 15
    assert first.versions_expired == 13
    assert lake.positions() == at
    assert sorted(rows_of(lake)) == before
    at = lake.append(entries(0, 8, [people(500, 1)]), at)
    second = lake.maintain(0.0)
    assert second.files_removed > 10
    at = lake.append(entries(1, 9, [people(600, 1)]), at)
    lake.maintain(0.0)
    at = lake.append(entries(0, 9, [people(700, 1)]), at)
    lake.maintain(0.0)
    assert len(data_files(lake)) <= 5
    assert len(rows_of(lake)) == len(before) + 3
    assert [e.number for e in lake.entries(0, after=0)] == list(range(1, 10))
    assert len(list((lake.folder / "events" / "metadata").glob("*.avro"))) < 15


def test_a_pinned_version_stays_readable(lake: Lake) -> None:
    lake._settings = LakeSettings(compact_files=2, keep_metadata=1)
    at = lake.append(entries(0, 1, [people(0, 4)]), LOG)
    pin = lake.pin("snapshot-1", 1000.0)
    assert pin.version == lake.version()
    for number in range(2, 9):
        at = lake.append(entries(0, number, [people(number * 10, 2)]), at)
        lake.maintain(1000.0)
    assert sorted(rows_of(lake, at_version=pin.version)) == people(0, 4)
    assert lake.positions(pin.version) == LOG.advanced({0: PartitionPosition(1, 4)})
    lake.unpin(pin)
    lake.unpin(pin)
    lake.maintain(1000.0)
    with pytest.raises(NotFound, match="has expired"):
        lake.positions(pin.version)


def test_a_forgotten_pin_ends_after_a_day(lake: Lake) -> None:
    lake.append(entries(0, 1, [people(0, 1)]), LOG)
    lake.pin("crashed", 1000.0)
    assert lake.maintain(1000.0 + 86_000).pins_dropped == 0
    assert lake.maintain(1000.0 + 87_000).pins_dropped == 1


def test_pin_names_are_checked(lake: Lake) -> None:
    with pytest.raises(Rejected, match="letters"):
        lake.pin("../x", 0.0)


def test_files_of_a_commit_on_its_way_are_not_removed(lake: Lake, tmp_path: Path) -> None:
    """Maintenance runs between an append's files and its commit; the append lands and its rows can be read."""
    at = lake.append(entries(0, 1, [people(0, 1)]), LOG)

    def collect(step: str) -> None:
        if step == "lake.commit":
            for _ in range(3):
                lake.maintain(0.0)

    with Lake.open(tmp_path / "lake", failpoint=collect) as slow:
        slow.append(entries(0, 2, [people(1, 2)]), at)
    assert len(rows_of(lake)) == 3


def test_left_over_files_are_removed_once_the_table_has_moved(lake: Lake) -> None:
    at = lake.append(entries(0, 1, [people(0, 1)]), LOG)
    frame = lake_entries.entries_frame(entries(0, 2, [people(5, 2)]), 1, lambda tenant: "default")
    lake_files.write_data_files(lake._table, frame, lake.version())
    assert len(data_files(lake)) == 2
    lake.maintain(0.0)
    lake.maintain(0.0)
    assert len(data_files(lake)) == 2
    lake.append(entries(0, 2, [people(1, 1)]), at)
    lake.maintain(0.0)
    assert len(data_files(lake)) == 2
    assert len(rows_of(lake)) == 2
