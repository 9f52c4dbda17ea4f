"""The lake in S3: the same table as on a disk, its catalog here; whatever S3 does, a commit is whole or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyiceberg.table import StaticTable

from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, Rejected, Unavailable
from cluster.stores.lake import Lake, PartitionPosition
from cluster.stores.lake_wanted import Wanted
from tests.cluster.stores.lake_records import LOG, entity, entries, people, rows_of
from tests.s3_bucket import OtherIO, S3Bucket

pytestmark = [pytest.mark.production, pytest.mark.timeout(120)]


@pytest.fixture
def remote(bucket: S3Bucket, tmp_path: Path) -> Iterator[Lake]:
    """An empty lake."""
    with Lake.open(tmp_path / "lake", settings=bucket.lake()) as opened:
        yield opened


def data_files(bucket: S3Bucket) -> set[str]:
    return {name for name in bucket.files("lake") if name.endswith(".parquet")}


def test_entries_come_back_as_they_were(remote: Lake, bucket: S3Bucket, tmp_path: Path) -> None:
    batches = [people(0, 3)[::-1], [entity("x", event_time="2017-05-31T21:30:19.73Z")], people(3, 5)]
    at = remote.append(entries(1, 1, batches[:2]), LOG)
    at = remote.append(entries(1, 3, batches[2:]), at)
    assert at == LOG.advanced({1: PartitionPosition(3, 9)})
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["catalog.db"]
    assert len(data_files(bucket)) == 3
    with remote.address.open() as other:
        assert other.positions() == at
        assert rows_of(other, partition=1) == [record for records in batches for record in records]
        assert sorted(rows_of(other, partition=1, after=2)) == sorted(batches[2])
        assert [entry.number for entry in other.entries(1, after=0)] == [1, 2, 3]
        found = other.events(Wanted(tenant="t"), ["id", "bucket"], None)
        assert found.schema == {"id": pl.String, "bucket": pl.UInt16}
        assert len(found) == 9


def test_another_engine_reads_the_table(remote: Lake, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the table's metadata file on, through another client."""
    remote.append(entries(3, 1, [people(0, 5)]), LOG)
    monkeypatch.setattr(OtherIO, "store", bucket.store, raising=False)
    properties = {"py-io-impl": f"{OtherIO.__module__}.{OtherIO.__name__}"}
    static = StaticTable.from_metadata(remote._table.metadata_location, properties)
    assert static.metadata.location == f"s3://{bucket.name}/{bucket.prefix}/lake/events"
    assert static.scan().to_arrow()["id"].to_pylist() == [record.id for record in people(0, 5)]
    with bucket.store.open_input_file(remote._table.metadata_location.removeprefix("s3://")) as metadata:
        assert bucket.server.details["password"].encode() not in metadata.read()


def test_compaction_expiry_and_left_over_files(remote: Lake, bucket: S3Bucket) -> None:
    remote._settings = bucket.lake(compact_files=4, keep_metadata=2)
    at = LOG
    for number in range(1, 8):
        at = remote.append(entries(0, number, [people(number * 10, 4)]), at)
    before = sorted(rows_of(remote))
    first = remote.maintain(0.0)
    assert (first.files_compacted, first.versions_expired) == (7, 6)
    assert remote.positions() == at
    assert sorted(rows_of(remote)) == before
    for number in (8, 9):
        at = remote.append(entries(0, number, [people(number * 100, 1)]), at)
        remote.maintain(0.0)
    assert len(data_files(bucket)) == 3
    assert len(rows_of(remote)) == len(before) + 2


@pytest.mark.parametrize("first_commit", [True, False])
def test_a_zombie_lands_nowhere(remote: Lake, bucket: S3Bucket, first_commit: bool) -> None:
    at = LOG if first_commit else remote.append(entries(0, 1, [people(0, 1)]), LOG)
    number = at.of(0).number + 1
    overtaken = []

    def overtake(step: str) -> None:
        if step == "lake.commit" and not overtaken:
            overtaken.append(remote.append(entries(0, number, [people(1, 2)]), at))

    with Lake.open(remote.folder, settings=bucket.lake(), failpoint=overtake) as zombie:
        zombie.positions()
        with pytest.raises(Conflict, match="somebody else appended"):
            zombie.append(entries(0, number, [people(5, 2)]), at)
    assert remote.positions() == overtaken[0]
    assert {record.id for record in rows_of(remote)} & {"p00005", "p00006"} == set()
    assert len(data_files(bucket)) == (1 if first_commit else 2)


def test_a_compaction_in_between_is_no_conflict(remote: Lake, bucket: S3Bucket) -> None:
    """The append is tried again on the new version, with its files under new names."""
    at = LOG
    for number in range(1, 5):
        at = remote.append(entries(0, number, [people(number, 1)]), at)
    done: list[Any] = []

    def interfere(step: str) -> None:
        if step == "lake.commit" and not done:
            remote._settings = bucket.lake(compact_files=2)
            done.append(remote.maintain(0.0))

    with Lake.open(remote.folder, settings=bucket.lake(), failpoint=interfere) as appender:
        at = appender.append(entries(0, 5, [people(5, 3)]), at)
        assert (appender.positions(), done[0].files_compacted) == (at, 4)
    assert sorted(record.id for record in rows_of(remote)) == [f"p{i:05d}" for i in (1, 2, 3, 4, 5, 6, 7)]


@pytest.mark.parametrize("step", ["lake.data", "lake.commit"])
def test_without_s3_an_append_waits(remote: Lake, bucket: S3Bucket, step: str) -> None:
    at = remote.append(entries(0, 1, [people(0, 3)]), LOG)

    def away(now: str) -> None:
        if now == step:
            bucket.kill()

    with Lake.open(remote.folder, settings=bucket.lake(), failpoint=away) as appender:
        with pytest.raises(Unavailable, match="does not answer"):
            appender.append(entries(0, 2, [people(5, 2)]), at)
        with pytest.raises(Unavailable):
            Lake.open(remote.folder, settings=bucket.lake())
    bucket.start()
    assert remote.positions() == at
    at = remote.append(entries(0, 2, [people(5, 2)]), at)
    assert sorted(rows_of(remote)) == sorted([*people(0, 3), *people(5, 2)])
    for number in (3, 4, 5):
        at = remote.append(entries(0, number, [people(number * 10, 1)]), at)
        remote.maintain(0.0)
    assert len(data_files(bucket)) == 5, "what the failed append had written is gone"


def test_missing_and_damaged_files_are_corrupt(remote: Lake, bucket: S3Bucket) -> None:
    remote.append(entries(0, 1, [people(0, 500)]), LOG)
    path = bucket.path("lake", next(iter(data_files(bucket))))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Corrupt, match="damaged"):
        rows_of(remote)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        rows_of(remote)


def test_a_place_belongs_to_one_lake(remote: Lake, bucket: S3Bucket, tmp_path: Path) -> None:
    """A second catalog would take the first one's files for left over ones."""
    remote.append(entries(0, 1, [people(0, 3)]), LOG)
    with pytest.raises(Rejected, match=r"does not know.*restore that file"):
        Lake.open(tmp_path / "other", settings=bucket.lake())
    with Lake.open(tmp_path / "other", settings=bucket.lake("elsewhere")) as other:
        other.append(entries(0, 1, [people(0, 3)]), LOG)
    with pytest.raises(Corrupt, match="lies at"):
        Lake.open(tmp_path / "other", settings=bucket.lake())
    with pytest.raises(Corrupt, match="lies at"):
        Lake.open(tmp_path / "other", settings=LakeSettings())
    (tmp_path / "lake" / "catalog.db").rename(tmp_path / "lost")
    with pytest.raises(Rejected, match="restore that file"):
        Lake.open(tmp_path / "lake", settings=bucket.lake())
    (tmp_path / "lost").rename(tmp_path / "lake" / "catalog.db")
    assert len(rows_of(remote)) == 3


def test_a_catalog_that_comes_back_older(remote: Lake, bucket: S3Bucket) -> None:
    at = remote.append(entries(0, 1, [people(0, 3)]), LOG)
    catalog = remote.folder / "catalog.db"
    older = catalog.read_bytes()
    newest = remote.append(entries(0, 2, [people(10, 2)]), at)
    remote.close()
    catalog.write_bytes(older)
    with Lake.open(remote.folder, settings=bucket.lake()) as lake:
        assert lake.positions() == at
        with pytest.raises(Conflict):
            lake.append(entries(0, 3, [people(20, 1)]), newest)
        with pytest.raises(Corrupt, match="must follow each other"):
            lake.append(entries(0, 3, [people(20, 1)]), at)
        assert len(data_files(bucket)) == 2, "what the lost version had is still there"
        again = lake.append(entries(0, 2, [people(10, 2)]), at)
        assert again == newest
        assert sorted(rows_of(lake)) == sorted([*people(0, 3), *people(10, 2)])
