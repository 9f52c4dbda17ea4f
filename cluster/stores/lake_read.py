"""Rows of the lake as Arrow batches, in log order where one partition is read; memory is bounded by windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from cluster import batch
from cluster.stores.lake_files import LakeEntry, place_of
from cluster.stores.lake_scan import files_for, read_rows
from cluster.stores.lake_wanted import Wanted
from cluster.stores.places import FilePlace

WINDOW_ROWS = 200_000
"""Rows that one step of an ordered reading holds; an entry is never divided."""

READ_SCHEMA = pa.schema(
    [
        *batch.SCHEMA,
        pa.field("log_partition", pa.int32(), nullable=False),
        pa.field("log_number", pa.int64(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
_TYPES: dict[str, pl.DataType] = {"bucket": pl.UInt16(), "kind": pl.UInt8(), "op": pl.UInt8()}
"""Iceberg has no unsigned and no short integers: the table keeps these as 32 bits."""


def _empty(columns: Sequence[str]) -> pl.DataFrame:
    whole = pl.DataFrame(pl.from_arrow(READ_SCHEMA.empty_table()))
    return whole.select(columns)


def events(
    table: Table,
    version: Snapshot | None,
    wanted: Wanted,
    columns: Sequence[str],
    newer_than: int,
    dtypes: Mapping[str, pl.DataType],
) -> pl.DataFrame:
    """Wanted rows, all in memory, integers narrowed to what they are in the log, other columns as `dtypes` says."""
    names = files_for(table, version, wanted, newer_than) if version else []
    wider = {name: kind for name, kind in {**_TYPES, **dtypes}.items() if name in columns}
    rows = read_rows(place_of(table), names, wanted, columns, wider)
    return _empty(columns).with_columns(pl.col(n).cast(kind) for n, kind in wider.items()) if rows is None else rows


def batches(table: Table, version: Snapshot | None, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Wanted rows in the columns of READ_SCHEMA."""
    if version is None:
        return
    place, names = place_of(table), files_for(table, version, wanted)
    if wanted.partition is None:
        for name in names:
            yield from _arrow(_narrowed(read_rows(place, [name], wanted, READ_SCHEMA.names)))
        return
    for first, last in _windows(place, names, wanted):
        window = wanted._replace(first=first, last=last)
        inside = files_for(table, version, window)
        yield from _arrow(_narrowed(read_rows(place, inside, window, READ_SCHEMA.names)).sort("log_number", "row"))


def entries(table: Table, version: Snapshot | None, wanted: Wanted) -> Iterator[LakeEntry]:
    """One entry for each number from wanted.first to wanted.last, empty where no wanted row has it."""
    partition, number, last = wanted.partition or 0, wanted.first or 1, wanted.last or 0
    for rows in batches(table, version, wanted):
        frame = pl.DataFrame(pl.from_arrow(rows))
        for (at,), part in frame.group_by("log_number", maintain_order=True):
            for missing in range(number, int(at)):
                yield LakeEntry(partition, missing, _plain(frame.clear()))
            yield LakeEntry(partition, int(at), _plain(part))
            number = int(at) + 1
    for missing in range(number, last + 1):
        yield LakeEntry(partition, missing, _plain(_empty(READ_SCHEMA.names)))


def _windows(place: FilePlace, names: Sequence[str], wanted: Wanted) -> Iterator[tuple[int, int]]:
    """Ranges of entry numbers of about WINDOW_ROWS rows each."""
    numbers = read_rows(place, names, wanted, ["log_number"])
    if numbers is None or numbers.is_empty():
        return
    counted = numbers.group_by("log_number").len().sort("log_number")
    window = ((counted["len"].cum_sum() - 1) // WINDOW_ROWS).alias("window")
    ranges = counted.with_columns(window).group_by("window", maintain_order=True)
    for first, last in ranges.agg(pl.col("log_number").min().alias("a"), pl.col("log_number").max().alias("b"))[
        "a", "b"
    ].iter_rows():
        yield int(first), int(last)


def _narrowed(frame: pl.DataFrame | None) -> pl.DataFrame:
    if frame is None:
        return _empty(READ_SCHEMA.names)
    return frame.with_columns(pl.col(name).cast(kind) for name, kind in _TYPES.items())


def _arrow(frame: pl.DataFrame) -> list[pa.RecordBatch]:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(READ_SCHEMA)
    return list(table.combine_chunks().to_batches())


def _plain(frame: pl.DataFrame) -> pa.RecordBatch:
    table = frame.select(batch.SCHEMA.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(batch.SCHEMA)
    found = table.combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=batch.SCHEMA)
