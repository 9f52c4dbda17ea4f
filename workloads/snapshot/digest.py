"""Digests of rows: what they hold, whatever the files, row groups and compression they lie in.

Each column of a slot gives streams of bytes, each hashed with BLAKE3 in row order: integers their values, text its
lengths and values. A column of few values (`layout.CODED`) gives its distinct values, sorted, as such a text, then
each row's place among them, uint32. The slot's digest is the BLAKE3 over the columns' names and digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from workloads.snapshot.layout import CODED, Slot


def slots_of(table: pa.Table, rows_by_slot: Sequence[tuple[int, int]]) -> tuple[Slot, ...]:
    """Digests of a table whose rows are those of slots, in order.

    Args:
        rows_by_slot: (slot, rows), in the order of the rows; they add up to the table's rows.
    """
    found, at = [], 0
    for slot, rows in rows_by_slot:
        if rows:
            found.append(Slot(slot, rows, digest_of(table.slice(at, rows))))
        at += rows
    return tuple(found)


def digest_of(table: pa.Table) -> str:
    """The digest of a table's rows, in their order."""
    whole = blake3()
    for name in table.column_names:
        column = table.column(name)
        if column.null_count:
            raise ValueError(f"{name} has nulls")
        whole.update(f"{name}\n".encode())
        whole.update(_coded(column) if name in CODED else _plain(column))
    return whole.hexdigest()


def _plain(column: pa.ChunkedArray) -> bytes:
    lengths, values = blake3(), blake3()
    for chunk in column.chunks:
        if pa.types.is_large_string(chunk.type) or pa.types.is_string(chunk.type):
            _add_text(chunk, lengths, values)
        else:
            values.update(_bytes(chunk.to_numpy(zero_copy_only=True)))
    return lengths.digest() + values.digest()


def _coded(column: pa.ChunkedArray) -> bytes:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.DictionaryArray.from_arrays([], pa.array([], "string"))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    used = np.flatnonzero(np.bincount(codes, minlength=1)) if len(codes) else np.empty(0, np.int64)
    names = encoded.dictionary.take(pa.array(used)).to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.zeros(int(used[-1]) + 1 if len(used) else 1, "<u4")
    place[used[order]] = np.arange(len(names), dtype="<u4")
    values = pa.chunked_array([pa.array([names[i] for i in order], pa.large_string())])
    return _plain(values) + blake3(_bytes(place[codes])).digest()


def _add_text(chunk: pa.Array, lengths: Any, values: Any) -> None:
    kind = np.dtype(np.int64 if pa.types.is_large_string(chunk.type) else np.int32)
    _, starts, data = chunk.buffers()
    if len(chunk) == 0:
        return
    offsets = np.frombuffer(starts, kind, count=len(chunk) + 1, offset=chunk.offset * kind.itemsize)
    lengths.update(_bytes(np.diff(offsets).astype("<u4")))
    first, last = int(offsets[0]), int(offsets[-1])
    if last > first:
        values.update(memoryview(data)[first:last])


def _bytes(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).view(np.uint8).data
