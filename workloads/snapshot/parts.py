"""Writing datasets: Parquet files with explicit schemas, aside, durable, named by their content, hashed by slot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray

from cluster.stores.files import Failpoint, disk_errors, no_failpoint
from cluster.stores.places import FilePlace, NewFile, place_at
from workloads.snapshot.digest import SlotDigests
from workloads.snapshot.layout import CODED, SCHEMAS, SLOT_BUCKETS, SLOTS, Part, Slot

NUMBER_GROUP_ROWS = 1 << 20
TEXT_GROUP_ROWS = 128 << 10
"""Rows of a row group: what a reader that takes slices has to decode at least."""
WRITE_THREADS = 4
"""More than there are cores on a small machine: some wait for the disk."""
PART_ROWS = 1 << 20
"""Rows of a file, about: more become several files, cut between slots, which are written side by side."""
_DICTIONARY = CODED | {"kind", "op", "bucket", "event_time", "claim", "sources", "priority"}
_HEX_AND_NUMBERS = frozenset({"id", "stamp"})
"""Texts in which few characters are many: entropy coding halves them, and is faster than LZ4 there."""
RowsBySlot = list[tuple[int, int]]


class Output(NamedTuple):
    """Rows on their way to a file, or to several where they are many.

    Args:
        dataset: its name in `layout.SCHEMAS`.
        tenant: a tenant's digest, or empty for the state part.
        rows_by_slot: as in `digest.slots_of`.
    """

    dataset: str
    tenant: str
    rows: pl.DataFrame
    rows_by_slot: RowsBySlot


class Written(NamedTuple):
    """A file that was written, and what it is part of: names as in `Output`."""

    dataset: str
    tenant: str
    part: Part


def rows_by_slot(buckets: pl.Series) -> RowsBySlot:
    """How many rows each slot has, of rows that are in the order of their buckets."""
    counts = np.bincount(buckets.to_numpy() // SLOT_BUCKETS, minlength=SLOTS)
    return [(slot, int(rows)) for slot, rows in enumerate(counts) if rows]


def numbers(name: str, values: NDArray[np.int64]) -> pl.DataFrame:
    """One column of integers."""
    return pl.DataFrame({name: values})


def write_parts(
    root: FilePlace | Path, outputs: Iterable[Output], failpoint: Failpoint = no_failpoint
) -> list[Written]:
    """Writes outputs to files of `root`, the snapshot's place, all durable when this returns.

    Outputs that are made while they are asked for are made beside the writing of those before.

    Returns:
        the files, in the order of the outputs and their rows. The same rows give the same names, so it is safe to
        call twice.

    Raises:
        Unavailable: the disk is full, or S3 does not answer.
    """
    place = place_at(root)
    with disk_errors("snapshot", place.local), ThreadPoolExecutor(WRITE_THREADS) as threads:
        pieces = (piece for output in outputs for piece in _pieces(output))
        written = list(threads.map(lambda piece: _write(place, piece, failpoint), pieces))
        place.sync(one.part.path for one in written)
        return written


def _pieces(output: Output) -> Iterator[Output]:
    """An output in pieces of PART_ROWS rows, or of one slot where that has more."""
    first, rows = 0, 0
    slots: RowsBySlot = []
    for slot in output.rows_by_slot:
        slots.append(slot)
        rows += slot[1]
        if rows >= PART_ROWS:
            yield output._replace(rows=output.rows.slice(first, rows), rows_by_slot=slots)
            first, rows, slots = first + rows, 0, []
    if slots:
        yield output._replace(rows=output.rows.slice(first, rows), rows_by_slot=slots)


def _write(place: FilePlace, output: Output, failpoint: Failpoint) -> Written:
    folder = f"tenants/{output.tenant}" if output.tenant else "state"
    failpoint(f"{output.dataset}.write")
    with place.create(f"{folder}/{output.dataset}", blake3()) as file:
        slots = _write_rows(output, file)
        size, digest = file.bytes_written, file.seal()
        failpoint(f"{output.dataset}.rename")
        name = f"{folder}/{output.dataset}-{digest[:32]}.parquet"
        file.publish(name)
    return Written(output.dataset, output.tenant, Part(name, size, digest, len(output.rows), slots))


def arrow(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """Rows as Arrow, in a dataset's columns; coded columns as dictionaries."""
    table = rows.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest())
    kinds = [
        have.type if pa.types.is_dictionary(have.type) else want.type
        for have, want in zip(table.schema, schema, strict=True)
    ]
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(schema.names, kinds, strict=True)]
    return table.cast(pa.schema(fields))


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How columns are written: numbers as packed differences, which LZ4 cannot make smaller; texts as they suit."""
    numbers = [f.name for f in schema if pa.types.is_integer(f.type) and f.name not in _DICTIONARY]
    codecs = {name: "zstd" if name in _HEX_AND_NUMBERS else "lz4" for name in schema.names}
    return {
        "compression": codecs | dict.fromkeys(numbers, "none"),
        "compression_level": {name: 1 for name, codec in codecs.items() if codec == "zstd"},
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        "use_dictionary": [name for name in schema.names if name in _DICTIONARY],
        "write_statistics": [name for name in ("vertex", "src", "dst", "bucket") if name in schema.names],
        "store_schema": False,
    }


def _write_rows(output: Output, file: NewFile) -> tuple[Slot, ...]:
    """Writes rows a group at a time, each hashed while it is at hand, and returns the slots' digests."""
    schema = SCHEMAS[output.dataset]
    text = any(not pa.types.is_integer(field.type) for field in schema)
    group_rows = TEXT_GROUP_ROWS if text else NUMBER_GROUP_ROWS
    digests = SlotDigests(schema.names, output.rows_by_slot)
    with pq.ParquetWriter(file, arrow(output.rows.clear(), schema).schema, **_encoding(schema)) as writer:
        for group in output.rows.iter_slices(group_rows):
            table = arrow(group, schema)
            writer.write_table(table, row_group_size=group_rows)
            digests.add(table)
    return digests.slots()
