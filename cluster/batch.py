"""Batches: records as Arrow columns, the one schema of the log and of the lake's `events` table.

One entry of the log is one Arrow IPC stream with one record batch of `SCHEMA`, or no bytes where it holds nothing. A
`Frame` is the same columns for who works on many records at once: a column for every field of `Record`, a row a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from cluster.errors import Corrupt
from cluster.model import Record

_TYPES: dict[str, pa.DataType] = {"bucket": pa.uint16(), "kind": pa.uint8(), "op": pa.uint8()}
SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.string()), nullable=False) for name in Record._fields])
Frame: TypeAlias = pl.DataFrame
Mask: TypeAlias = npt.NDArray[np.bool_]
"""Of a frame: whether each row is meant."""
_WRITES = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READS = pa.ipc.IpcReadOptions(use_threads=False)
"""Columns of an entry are small: to hand each to another thread takes three times as long as to do it here, and with
other processes on the same cores the hands wait for a core each time."""


def to_arrow(records: Sequence[Record]) -> pa.RecordBatch:
    """Columns of records, in their order."""
    columns = zip(*records, strict=True) if records else [()] * len(SCHEMA)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


@cache
def _nothing() -> pa.RecordBatch:
    return to_arrow([])  # not at import: with its first array from Python, Arrow imports Pandas, a third of a second


def from_arrow(batch: pa.RecordBatch | pa.Table) -> list[Record]:
    """Records of columns, in their order."""
    columns = [batch.column(name).to_pylist() for name in Record._fields]
    return list(map(Record._make, zip(*columns, strict=True)))


def encode(records: Sequence[Record]) -> bytes:
    """The bytes of one log entry."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=_WRITES) as writer:
        writer.write_batch(to_arrow(records))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode_arrow(data: bytes) -> pa.RecordBatch:
    """Columns of one log entry.

    Raises:
        Corrupt: the bytes are no batch of the schema.
    """
    if not data:
        return _nothing()
    try:
        with pa.ipc.open_stream(data, options=_READS) as reader:
            batch = reader.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise Corrupt(f"log entry is not an Arrow batch: {error}") from error
    if batch.schema != SCHEMA:
        raise Corrupt(f"log entry has another schema: {batch.schema.names}")
    return batch


def decode(data: bytes) -> list[Record]:
    """Records of one log entry, in their order."""
    return from_arrow(decode_arrow(data))


def decode_frame(entries: Iterable[bytes]) -> Frame:
    """Columns of several log entries, in their order. Raises Corrupt as `decode_arrow`."""
    return decode_parts([entries])[0]


def decode_parts(parts: Iterable[Iterable[bytes]]) -> tuple[Frame, list[int]]:
    """As `decode_frame`, of several lists of log entries at once; and how many rows each list has."""
    decoded = [list(map(decode_arrow, entries)) for entries in parts]
    frame = _frame(pa.Table.from_batches(chain.from_iterable(decoded), SCHEMA))
    return frame, [sum(batch.num_rows for batch in entries) for entries in decoded]


def frame_of(records: Sequence[Record]) -> Frame:
    """Columns of records, in their order."""
    return _frame(pa.Table.from_batches([to_arrow(records)], SCHEMA))


def only(frame: Frame, meant: Mask) -> Frame:
    """The rows that are meant, in their order; cheap where that is all or none of them."""
    if meant.all():
        return frame
    return frame.filter(meant) if meant.any() else frame.clear()


def records_of(frame: Frame) -> list[Record]:
    """Records of columns, in their order."""
    return list(map(Record._make, frame.rows()))


def _frame(table: pa.Table) -> Frame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame, a column would be a series
    return frame
