"""The lake on real Iceberg tables: positions, zombies, durability, reading in log order, maintenance."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster import batch
from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, NotFound, Rejected, Unavailable
from cluster.model import Record
from cluster.stores import lake_entries, lake_files, lake_read
from cluster.stores.lake import Lake, LakeEntry, PartitionPosition, Positions, Wanted
from tests.cluster.stores.lake_records import LOG, entity, entries


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake.open(tmp_path / "lake") as opened:
        yield opened


def people(first: int, count: int, **fields: str) -> list[Record]:
    return [entity(f"p{number:05d}", position=number, **fields) for number in range(first, first + count)]  # type: ignore[arg-type]


def rows_of(lake: Lake, **wanted: object) -> list[Record]:
    batches = list(lake.read(**wanted))  # type: ignore[arg-type]
    return [record for found in batches for record in batch.from_arrow(found.select(batch.SCHEMA.names))]


def test_missing_lake_is_not_created_by_readers(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no lake"):
        Lake.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_folder_that_no_location_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="without"):
        Lake.open(tmp_path / "a?b")


def test_several_open_a_new_lake_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def opened(folder: Path) -> bool:
        together.wait(10)
        with Lake.open(folder) as lake:
            return lake.positions().is_empty

    with ThreadPoolExecutor(6) as threads:
        for number in range(8):
            assert all(threads.map(opened, [tmp_path / f"lake-{number}"] * 6))


def test_empty_lake_stands_at_nothing(lake: Lake) -> None:
    assert lake.version() is None
    assert lake.positions() == Positions()
    assert rows_of(lake) == []
    assert list(lake.entries(0, after=0)) == []
    assert lake.append([], LOG) == LOG
    assert lake.version() is None


def test_positions_are_kept_with_the_rows(lake: Lake, tmp_path: Path) -> None:
    at = lake.append([*entries(0, 1, [people(0, 3), people(3, 2)]), *entries(2, 1, [people(5, 4)])], LOG)
    assert at == LOG.advanced({0: PartitionPosition(2, 5), 2: PartitionPosition(1, 4)})
    at = lake.append(entries(0, 3, [people(9, 1)]), at)
    with Lake.open(tmp_path / "lake", create=False) as other:
        assert other.positions() == at
        assert at.records == 10
        assert sorted(rows_of(other)) == sorted(people(0, 10))


def test_entries_come_back_as_they_were(lake: Lake) -> None:
    batches = [people(0, 3)[::-1], [], people(3, 5), people(0, 1)]
    at = lake.append(entries(1, 1, batches[:2]), LOG)
    lake.append(entries(1, 3, batches[2:]), at)
    found = list(lake.entries(1, after=0))
    assert [entry.number for entry in found] == [1, 2, 3, 4]
    assert [batch.from_arrow(entry.batch) for entry in found] == batches
    assert [entry.number for entry in lake.entries(1, after=2, upto=3)] == [3]
    with pytest.raises(Corrupt, match="up to entry 4, not 9"):
        list(lake.entries(1, after=2, upto=9))


def test_entries_of_buckets_keep_every_number_and_floors(lake: Lake) -> None:
    from cluster.model import floor_record

    a, b = entity("a", case="one"), entity("b", case="two")
    floor = floor_record("t", "s", "", "a1", 0)
    lake.append(entries(0, 1, [[a], [b], [floor], [a, b]]), LOG)
    found = list(lake.entries(0, after=0, buckets=(a.bucket, a.bucket)))
    assert [batch.from_arrow(entry.batch) for entry in found] == [[a], [], [floor], [a]]


def test_reading_goes_by_windows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_read, "WINDOW_ROWS", 10)
    batches = [people(i * 7, 7) for i in range(9)]
    at = lake.append(entries(0, 1, batches[:4]), LOG)
    lake.append(entries(0, 5, batches[4:]), at)
    found = list(lake.read(partition=0))
    assert len(found) > 4
    assert max(part.num_rows for part in found) <= 14
    numbers = [n for part in found for n in part.column("log_number").to_pylist()]
    assert numbers == sorted(numbers)
    assert rows_of(lake, partition=0) == [record for records in batches for record in records]


def test_filters(lake: Lake) -> None:
    mine, yours = people(0, 3), people(3, 2, tenant="u", source="other")
    lake.append([*entries(0, 1, [mine]), *entries(1, 1, [yours])], LOG)
    assert sorted(rows_of(lake, tenant="u")) == yours
    assert sorted(rows_of(lake, source="s")) == mine
    assert rows_of(lake, partition=1, after=0, upto=1) == yours
    assert rows_of(lake, partition=1, after=1) == []
    with pytest.raises(ValueError, match="name it"):
        list(lake.read(after=3))


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


def data_files(lake: Lake) -> set[str]:
    return {path.name for path in (lake.folder / "events" / "data").rglob("*.parquet")}


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


def test_the_library_does_not_retry_by_itself(lake: Lake, tmp_path: Path) -> None:
    """Without the property below, the library would rebase a refused append and land it."""
    at = lake.append(entries(0, 1, [people(0, 1)]), LOG)
    with Lake.open(tmp_path / "lake") as zombie:
        frame = lake_entries.entries_frame(entries(0, 2, [people(5, 2)]), 1, lambda tenant: "default")
        files = lake_files.write_data_files(zombie._table.metadata, frame, None)
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


def test_dates_and_residency_make_partitions(tmp_path: Path) -> None:
    times = [
        "2017-05-31T21:30:19.73Z",
        "2017-12-31T00:00:00Z",
        "",
        "yesterday",
        "9999-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
    ]
    records = [entity(f"p{i}", event_time=time) for i, time in enumerate(times)]
    records += [entity("x", tenant="eu")]
    with Lake.open(tmp_path / "lake", residency_of={"t": "default", "eu": "eu/west"}.__getitem__) as lake:
        lake.append(entries(0, 1, [records]), LOG)
        folders = {
            str(p.parent.relative_to(lake.folder / "events" / "data")) for p in lake.folder.rglob("data/**/*.parquet")
        }
        assert folders == {
            "event_year=2017/residency=default",
            "event_year=1970/residency=default",
            "event_year=2099/residency=default",
            "event_year=2026/residency=eu%2Fwest",
        }
        assert rows_of(lake, partition=0) == records
        scanned = lake._table.scan(row_filter="event_date >= '2017-06-01' and event_date < '2018-01-01'").to_arrow()
        assert scanned["id"].to_pylist() == ["p1"]
        assert lake._table.scan(row_filter="residency = 'eu/west'").to_arrow()["id"].to_pylist() == ["x"]


def test_another_engine_reads_the_table(lake: Lake) -> None:
    """The library's own reader, which goes by field ids and metadata alone."""
    lake.append(entries(3, 1, [people(0, 5)]), LOG)
    table = lake._table.scan().to_arrow()
    assert table.num_rows == 5
    assert set(table["log_partition"].to_pylist()) == {3}
    assert table["row"].to_pylist() == [0, 1, 2, 3, 4]
    schema = pq.read_schema(next((lake.folder / "events" / "data").rglob("*.parquet")))
    assert all(b"PARQUET:field_id" in field.metadata for field in schema)


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
    lake_files.write_data_files(lake._table.metadata, frame, lake.version())
    assert len(data_files(lake)) == 2
    lake.maintain(0.0)
    lake.maintain(0.0)
    assert len(data_files(lake)) == 2
    lake.append(entries(0, 2, [people(1, 1)]), at)
    lake.maintain(0.0)
    assert len(data_files(lake)) == 2
    assert len(rows_of(lake)) == 2


def test_a_missing_or_damaged_data_file_is_corrupt(lake: Lake) -> None:
    lake.append(entries(0, 1, [people(0, 5)]), LOG)
    path = next((lake.folder / "events" / "data").rglob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Corrupt, match="damaged"):
        rows_of(lake)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        rows_of(lake)


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


def test_wanted_rows_since_positions(lake: Lake) -> None:
    at = lake.append([*entries(0, 1, [people(0, 3)]), *entries(1, 1, [people(3, 3)])], LOG)
    sequence = lake.sequence(lake.version())
    lake.append([*entries(0, 2, [people(6, 3)]), *entries(5, 1, [people(9, 1)])], at)
    found = lake.events(Wanted(after=at), ["id"], None)
    assert sorted(found["id"]) == ["p00006", "p00007", "p00008", "p00009"]
    assert sorted(lake.events(Wanted(after=at), ["id"], None, newer_than=sequence)["id"]) == sorted(found["id"])
    lake._settings = LakeSettings(compact_files=1)
    assert lake.maintain(0.0).files_compacted == 2
    assert sorted(lake.events(Wanted(after=at), ["id"], None, newer_than=sequence)["id"]) == sorted(found["id"])
