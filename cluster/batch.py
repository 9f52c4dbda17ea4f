"""Batches: records as Arrow columns, the one schema of the log and of the lake's `events` table.

One entry of the log is one Arrow IPC stream with one record batch of `SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cluster.errors import Corrupt
from cluster.model import Record

_TYPES: dict[str, pa.DataType] = {"bucket": pa.uint16(), "kind": pa.uint8(), "op": pa.uint8()}
SCHEMA = pa.schema([pa.field(name, _TYPES.get(name, pa.string()), nullable=False) for name in Record._fields])
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def to_arrow(records: Sequence[Record]) -> pa.RecordBatch:
    """Columns of records, in their order."""
    columns = zip(*records, strict=True) if records else [()] * len(SCHEMA)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def from_arrow(batch: pa.RecordBatch | pa.Table) -> list[Record]:
    """Records of columns, in their order."""
    columns = [batch.column(name).to_pylist() for name in Record._fields]
    return list(map(Record._make, zip(*columns, strict=True)))


def encode(records: Sequence[Record]) -> bytes:
    """The bytes of one log entry."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=_OPTIONS) as writer:
        writer.write_batch(to_arrow(records))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode_arrow(data: bytes) -> pa.RecordBatch:
    """Columns of one log entry.

    Raises:
        Corrupt: the bytes are no batch of the schema.
    """
    try:
        with pa.ipc.open_stream(data) as reader:
            batch = reader.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise Corrupt(f"log entry is not an Arrow batch: {error}") from error
    if batch.schema != SCHEMA:
        raise Corrupt(f"log entry has another schema: {batch.schema.names}")
    return batch


def decode(data: bytes) -> list[Record]:
    """Records of one log entry, in their order."""
    return from_arrow(decode_arrow(data))
