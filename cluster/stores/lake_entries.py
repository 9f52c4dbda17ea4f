"""Entries of the log as rows of the lake: they follow each other, and know where they stood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from cluster import batch
from cluster.errors import Corrupt
from cluster.model import Kind
from cluster.stores.lake_positions import PartitionPosition, Positions

FIRST_YEAR, LAST_YEAR = 1970, 2099
"""Event dates outside count as the nearest: they bound the partitions of the table, hence the files of a commit."""


class LakeEntry(NamedTuple):
    """One entry of the log on its way to the lake, or back: `batch` has the columns of `cluster.batch.SCHEMA`.

    Args:
        appended_ms: as the log says, ms since 1970; None where that is not known, and on the way back.
    """

    partition: int
    number: int
    batch: pa.RecordBatch
    appended_ms: int | None = None


def continued(parent: Positions, entries: Sequence[LakeEntry]) -> Positions:
    """The positions after the entries.

    Raises:
        Corrupt: an entry does not follow the one before, or has another schema.
    """
    taken: dict[int, PartitionPosition] = {}
    for entry in entries:
        at = taken.get(entry.partition) or parent.of(entry.partition)
        if entry.number != at.number + 1:
            raise Corrupt(
                f"lake: partition {entry.partition} is kept up to entry {at.number} and was given {entry.number};"
                " entries must follow each other. Read them again from the log"
            )
        if entry.batch.schema != batch.SCHEMA:
            raise Corrupt(f"lake: entry {entry.number} of partition {entry.partition} has another schema")
        taken[entry.partition] = PartitionPosition(entry.number, at.records + _facts(entry.batch))
    return parent.advanced(taken)


def _facts(rows: pa.RecordBatch) -> int:
    """Records of a batch; floors and priorities are none."""
    return int(pc.sum(pc.less(rows.column("kind"), Kind.FLOOR.value)).as_py() or 0)


def entries_frame(entries: Sequence[LakeEntry], generation: int, residency_of: Callable[[str], str]) -> pl.DataFrame:
    """Rows of log entries with the columns of the `events` table, sorted by partition of the table, tenant and key."""
    rows = [entry.batch.num_rows for entry in entries]
    counts = pl.Series(rows, dtype=pl.Int64)
    table = pa.Table.from_batches([entry.batch for entry in entries], schema=batch.SCHEMA)
    frame = pl.DataFrame(pl.from_arrow(table, rechunk=True))
    starts = counts.cum_sum() - counts
    standing = pl.DataFrame(
        {
            "log_partition": pl.Series([entry.partition for entry in entries], dtype=pl.Int32),
            "log_number": pl.Series([entry.number for entry in entries], dtype=pl.Int64),
            "appended_ms": pl.Series([entry.appended_ms for entry in entries], dtype=pl.Int64),
            "start": starts,
        }
    )
    where = standing[pl.Series(range(len(entries)), dtype=pl.UInt32).repeat_by(counts).explode().drop_nulls()]
    frame = frame.with_columns(
        pl.lit(generation, dtype=pl.Int32).alias("log_generation"),
        where["log_partition"],
        where["log_number"],
        where["appended_ms"],
        (pl.int_range(len(frame), dtype=pl.Int64) - where["start"]).cast(pl.Int32).alias("row"),
        event_date(pl.col("event_time")).alias("event_date"),
    )
    return _sorted(frame.with_columns(_residency(frame["tenant"], residency_of)))


def event_date(event_time: pl.Expr) -> pl.Expr:
    """The date that a source wrote as its event's time; 1970-01-01 where it gave none."""
    date = event_time.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    return date.fill_null(pl.date(FIRST_YEAR, 1, 1)).clip(pl.date(FIRST_YEAR, 1, 1), pl.date(LAST_YEAR, 12, 31))


def _residency(tenants: pl.Series, residency_of: Callable[[str], str]) -> pl.Series:
    distinct = tenants.unique().to_list()
    by_tenant = {tenant: residency_of(tenant) for tenant in distinct}
    if len(set(by_tenant.values())) <= 1:
        value = next(iter(by_tenant.values()), "")
        return pl.repeat(value, len(tenants), dtype=pl.String, eager=True).alias("residency")
    return tenants.replace_strict(by_tenant, return_dtype=pl.String).alias("residency")


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    year = pl.col("event_date").dt.year().alias("_year")
    return frame.with_columns(year).sort("_year", "residency", "tenant", "case", "kind", "type", "id")
