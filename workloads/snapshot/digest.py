"""Digests of rows: what they hold, whatever the files, row groups and compression they lie in.

Each column of a slot gives streams of bytes, each hashed with BLAKE3 in row order: integers their values, text its
lengths and values. A column of few values (`layout.CODED`) gives its distinct values, sorted, as such a text, then
each row's place among them, uint32. The slot's digest is the BLAKE3 over the columns' names and digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from workloads.kernels.codes import recoded, used_codes
from workloads.snapshot.layout import CODED, Slot


class SlotDigests:
    """Digests of the slots of rows that come in pieces; the pieces' bounds make no difference.

    Args:
        rows_by_slot: (slot, rows), in the order of the rows; they add up to the rows that come.
    """

    def __init__(self, columns: Sequence[str], rows_by_slot: Sequence[tuple[int, int]]) -> None:
        self._columns = list(columns)
        self._coming = iter([(slot, rows) for slot, rows in rows_by_slot if rows])
        self._found: list[Slot] = []
        self._begin()

    def add(self, table: pa.Table) -> None:
        """The next rows."""
        at = 0
        while at < table.num_rows:
            rows = min(self._left, table.num_rows - at)
            if not rows:
                raise ValueError("there are more rows than the slots have")
            self._digest.add(table.slice(at, rows))
            at += rows
            self._left -= rows
            if not self._left:
                self._found.append(Slot(self._slot, self._rows, self._digest.hexdigest()))
                self._begin()

    def slots(self) -> tuple[Slot, ...]:
        """The slots, when all rows have come."""
        if self._left:
            raise ValueError("there are fewer rows than the slots have")
        return tuple(self._found)

    def _begin(self) -> None:
        self._slot, self._rows = next(self._coming, (0, 0))
        self._left = self._rows
        self._digest = _Rows(self._columns)


def slots_of(table: pa.Table, rows_by_slot: Sequence[tuple[int, int]]) -> tuple[Slot, ...]:
    """Digests of a table whose rows are those of slots, in order: as `SlotDigests`."""
    digests = SlotDigests(table.column_names, rows_by_slot)
    digests.add(table)
    return digests.slots()


class _Column(Protocol):
    def add(self, column: pa.ChunkedArray) -> None: ...

    def digest(self) -> bytes: ...


class _Rows:
    """The digest of rows in their order."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns: dict[str, _Column] = {name: _Coded() if name in CODED else _Plain() for name in columns}

    def add(self, table: pa.Table) -> None:
        for name, digest in self._columns.items():
            column = table.column(name)
            if column.null_count:
                raise ValueError(f"{name} has nulls")
            digest.add(column)

    def hexdigest(self) -> str:
        whole = blake3()
        for name, digest in self._columns.items():
            whole.update(f"{name}\n".encode())
            whole.update(digest.digest())
        found: str = whole.hexdigest()
        return found


class _Plain:
    """Integers, or texts."""

    def __init__(self) -> None:
        self._lengths, self._values = blake3(), blake3()

    def add(self, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if pa.types.is_large_string(chunk.type) or pa.types.is_string(chunk.type):
                self._add_text(chunk)
            else:
                self._values.update(_bytes(chunk.to_numpy(zero_copy_only=True)))

    def digest(self) -> bytes:
        found: bytes = self._lengths.digest() + self._values.digest()
        return found

    def _add_text(self, chunk: pa.Array) -> None:
        kind = np.dtype(np.int64 if pa.types.is_large_string(chunk.type) else np.int32)
        _, starts, data = chunk.buffers()
        if len(chunk) == 0:
            return
        offsets = np.frombuffer(starts, kind, count=len(chunk) + 1, offset=chunk.offset * kind.itemsize)
        self._lengths.update(_bytes(np.diff(offsets).astype("<u4")))
        first, last = int(offsets[0]), int(offsets[-1])
        if last > first:
            self._values.update(memoryview(data)[first:last])


class _Coded:
    """Texts of few values. Their codes wait for the last row: only then are all values known."""

    def __init__(self) -> None:
        self._chunks: list[pa.DictionaryArray] = []

    def add(self, column: pa.ChunkedArray) -> None:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        self._chunks += encoded.chunks

    def digest(self) -> bytes:
        codes, names = self._codes()
        used = used_codes(codes, len(names))
        texts = names.take(pa.array(used)).to_pylist()
        order = sorted(range(len(texts)), key=texts.__getitem__)
        place = np.zeros(len(names), np.uint32)
        place[used[order]] = np.arange(len(texts), dtype=np.uint32)
        values = _Plain()
        values.add(pa.chunked_array([pa.array([texts[i] for i in order], pa.large_string())]))
        found: bytes = values.digest() + blake3(_bytes(recoded(codes, place).astype("<u4", copy=False))).digest()
        return found

    def _codes(self) -> tuple[NDArray[Any], pa.Array]:
        if not self._chunks:
            return np.empty(0, np.int64), pa.array([], "string")
        unified = pa.chunked_array(self._chunks).unify_dictionaries()
        codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in unified.chunks]
        return np.concatenate(codes), unified.chunk(0).dictionary


def _bytes(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).view(np.uint8).data
