"""Reading the `events` table: which data files a reading needs, and their rows.

Tables of ours have no delete files, so a version's rows are those of its data files. A manifest or data file whose
sequence number is not newer than a table version holds nothing that this version lacks, and is skipped unread;
the filter by log number decides, since compaction mixes old rows into newer files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, ManifestEntry
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import IntegerType, LongType

from cluster import batch
from cluster.errors import Corrupt
from cluster.model import Kind
from cluster.stores.lake_files import name_in, place_of
from cluster.stores.lake_positions import Positions
from cluster.stores.lake_wanted import Wanted
from cluster.stores.places import FilePlace

APPENDED = "appended_ms"
"""When an entry was appended to the log, ms since 1970: the one column that older data files lack."""
REMOTE_THREADS = 4
"""Files of S3 that are in memory at a time, whole, while their rows are read."""


def _file_schema() -> dict[str, pl.DataType]:
    records: dict[str, pl.DataType] = {
        field.name: pl.String() if str(field.type) == "string" else pl.Int32() for field in batch.SCHEMA
    }
    standing = {"log_generation": pl.Int32(), "log_partition": pl.Int32(), "log_number": pl.Int64(), "row": pl.Int32()}
    return {**records, **standing, "event_date": pl.Date(), "residency": pl.String(), APPENDED: pl.Int64()}


def manifest_entries(table: Table, version: Snapshot, newer_than: int = 0) -> Iterator[ManifestEntry]:
    """Live entries of a version that came with a commit after sequence number `newer_than`."""
    for manifest in version.manifests(table.io):
        if manifest.sequence_number <= newer_than:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            if (entry.sequence_number or manifest.sequence_number) > newer_than:
                yield entry


def files_for(table: Table, version: Snapshot, wanted: Wanted, newer_than: int = 0) -> list[str]:
    """Names of data files that may hold wanted rows."""
    found, place = (entry.data_file for entry in manifest_entries(table, version, newer_than)), place_of(table)
    return [name_in(place, file.file_path) for file in found if _may_hold(table, file, wanted)]


def bounds(table: Table, file: DataFile, column: str) -> tuple[int, int] | None:
    """Least and greatest value of an integer column in a file, where the table knows them."""
    field = table.schema().find_field(column)
    low, high = (file.lower_bounds or {}).get(field.field_id), (file.upper_bounds or {}).get(field.field_id)
    if low is None or high is None:
        return None
    kind = field.field_type
    if not isinstance(kind, (IntegerType, LongType)):
        raise TypeError(f"{column} is no integer column")
    return int(from_bytes(kind, low)), int(from_bytes(kind, high))


def _may_hold(table: Table, file: DataFile, wanted: Wanted) -> bool:
    numbers = bounds(table, file, "log_number")
    if numbers is None:
        return True
    partitions = bounds(table, file, "log_partition")
    if wanted.partition is not None and partitions and not partitions[0] <= wanted.partition <= partitions[1]:
        return False
    if wanted.first is not None and numbers[1] < wanted.first:
        return False
    return wanted.last is None or numbers[0] <= wanted.last


def condition(wanted: Wanted) -> pl.Expr | None:
    """The filter for wanted rows; None where all are."""
    parts: list[pl.Expr] = []
    number = pl.col("log_number")
    if wanted.after is not None and not wanted.after.is_empty:
        parts.append(_later(wanted.after))
    if wanted.partition is not None:
        parts.append(pl.col("log_partition") == wanted.partition)
    if wanted.first is not None:
        parts.append(number >= wanted.first)
    if wanted.last is not None:
        parts.append(number <= wanted.last)
    if wanted.least_kind is not None:
        parts.append(pl.col("kind") >= wanted.least_kind)
    if wanted.most_kind is not None:
        parts.append(pl.col("kind") <= wanted.most_kind)
    if wanted.since_ms is not None or wanted.until_ms is not None:
        parts.append(_in_time(wanted) | (pl.col("kind") >= int(Kind.FLOOR)))
    if wanted.buckets is not None:
        parts.append(pl.col("bucket").is_between(*wanted.buckets) | (pl.col("kind") >= int(Kind.FLOOR)))
    for name in ("tenant", "source"):
        value = getattr(wanted, name)
        if value is not None:
            parts.append(pl.col(name) == value)
    return pl.all_horizontal(parts) if parts else None


def _in_time(wanted: Wanted) -> pl.Expr:
    at = pl.col(APPENDED)
    within = pl.lit(True) if wanted.since_ms is None else at >= wanted.since_ms
    return at.is_null() | (within if wanted.until_ms is None else within & (at < wanted.until_ms))


def _later(after: Positions) -> pl.Expr:
    known = [(pl.col("log_partition") == p) & (pl.col("log_number") > at.number) for p, at in after.partitions.items()]
    return pl.any_horizontal([*known, ~pl.col("log_partition").is_in(list(after.partitions))])


def read_rows(
    place: FilePlace,
    names: Sequence[str],
    wanted: Wanted,
    columns: Sequence[str],
    dtypes: Mapping[str, pl.DataType] | None = None,
) -> pl.DataFrame | None:
    """Wanted rows of data files, in no particular order; None where there is no file.

    Files of this machine are read by one scan; those of S3 a file each, a few side by side.

    Args:
        dtypes: what columns are cast to while they are read: cheaper than afterwards.

    Raises:
        Corrupt: a file is missing or damaged.
    """
    if not names:
        return None
    if not place.is_remote:
        return _scan(place, names, wanted, columns, dtypes or {})
    with ThreadPoolExecutor(REMOTE_THREADS) as threads:
        return pl.concat(threads.map(lambda name: _scan(place, [name], wanted, columns, dtypes or {}), names))


def _scan(
    place: FilePlace, names: Sequence[str], wanted: Wanted, columns: Sequence[str], dtypes: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    asked = APPENDED in columns or wanted.since_ms is not None or wanted.until_ms is not None
    try:
        sources: Any = [place.source(name) for name in names]
        rows = pl.scan_parquet(
            sources, glob=False, cache=False, schema=_file_schema() if asked else None,
            missing_columns="insert", extra_columns="ignore",  # older files do not know when entries were appended
        )  # fmt: skip
        kept = condition(wanted)
        if kept is not None:
            rows = rows.filter(kept)
        casts = [pl.col(name).cast(kind) for name, kind in dtypes.items()]
        return rows.select(columns).with_columns(casts).collect()
    except FileNotFoundError as error:
        raise Corrupt(
            f"lake: a data file of this table version is missing ({error}). If the version is old, read again at the"
            " newest one; else restore the file"
        ) from error
    except pl.exceptions.ComputeError as error:
        raise Corrupt(f"lake: a data file is damaged: {error}; restore it") from error
