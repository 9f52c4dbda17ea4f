"""The lake on real Iceberg tables: opening it, and reading it in log order and by what is wanted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster import batch
from cluster.config import LakeSettings
from cluster.errors import Corrupt, NotFound, Rejected
from cluster.stores import lake_read
from cluster.stores.lake import Lake, Positions
from cluster.stores.lake_wanted import Wanted
from tests.cluster.stores.lake_records import LOG, entity, entries, people, rows_of


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
