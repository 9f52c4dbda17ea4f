"""Parquet: columns of the event format, or any columns with a mapping; a row's position is its number from 1.

Row groups are read one after the other in small batches, so memory depends on the limits and not on what the file
declares. Null is absent; timestamps become RFC 3339 text (without a zone they count as UTC), dates and times ISO
8601, decimals and durations text, binary base64, structs and maps objects. A row group that cannot be decoded is one
bad record; reading goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.connectors.base import FileSource, Item, Position, RawRecord, bad_raw, batched, behind, json_bytes
from actors.connectors.event_columns import nest_columns, refuse_foreign
from actors.connectors.input_file import InputFile, Progress
from actors.connectors.mapping import ColumnMapping
from actors.connectors.parquet_values import kept_row, plain_row, rows_of
from actors.connectors.rows import compile_mapping, lookup
from cluster.errors import BadRecord, Rejected

Convert = Callable[[int, dict[str, Any]], list[RawRecord]]


@dataclass(frozen=True)
class Group:
    """One row group: its index, the number of rows before it, its rows and its stored bytes."""

    index: int
    rows_before: int
    rows: int
    stored_bytes: int


@dataclass
class ParquetFile:
    """Some of the row groups of a file."""

    file: InputFile
    settings: bytes
    columns: tuple[str, ...]
    convert: Convert
    groups: tuple[Group, ...]
    expanding: tuple[str, ...]
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def digest(self) -> str:
        return self.file.sha256(self.settings)

    @property
    def row_form(self) -> Mapping[str, Any]:
        """A row names its columns itself; those that are null in it are absent."""
        return {"format": "parquet", "columns": list(self.columns)}

    @property
    def total_bytes(self) -> int:
        return sum(group.stored_bytes for group in self.groups)

    def progress_bytes(self) -> int:
        return self.progress.done_bytes

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        yield from batched(behind(self._items(after[0] if after else 0), after), limit_records, limit_bytes)
        self.file.check_unchanged()

    def split(self, parts: int) -> Sequence[FileSource]:
        """Row groups in order, dealt into at most `parts` runs of about equal rows."""
        total, done = sum(group.rows for group in self.groups), 0
        runs: dict[int, list[Group]] = {}
        for group in self.groups:
            runs.setdefault(done * parts // max(1, total), []).append(group)
            done += group.rows
        return [replace(self, groups=tuple(run), progress=Progress()) for run in runs.values()] or [self]

    def _items(self, after_row: int) -> Iterator[Item]:
        self.progress.done_bytes = 0
        with _open(self.file, self.expanding) as opened:
            for group in self.groups:
                if group.rows_before + group.rows >= after_row:
                    yield from self._group(opened, group, after_row)
                self.progress.done_bytes += group.stored_bytes

    def _group(self, opened: pq.ParquetFile, group: Group, after_row: int) -> Iterator[Item]:
        number = group.rows_before
        try:
            for batch in opened.iter_batches(self.file.limits.parquet_rows, row_groups=[group.index]):
                if number + batch.num_rows >= after_row:
                    yield from self._rows(batch, number)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            first, last = number + 1, group.rows_before + group.rows
            reason = f"rows {first:,} to {last:,} (row group {group.index}) cannot be decoded: {str(error)[:500]}"
            yield bad_raw((first,), b"", self.file.limits, "decode", reason, group.stored_bytes)

    def _rows(self, batch: pa.RecordBatch, number: int) -> Iterator[Item]:
        for row in rows_of(batch, self.file.limits.parquet_slice_bytes):
            number += 1
            try:
                yield from self.convert(number, plain_row(row))
            except BadRecord as error:
                payload, reason = kept_row(row), f"row {number:,}: {error.reason}"
                yield bad_raw((number,), payload, self.file.limits, error.error_class, reason)


def open_parquet(
    file: InputFile, settings: bytes, mapping: ColumnMapping | None, defaults: Mapping[str, Any]
) -> ParquetFile:
    """Read the file's metadata and check what it declares against the limits.

    Raises:
        Rejected: no Parquet file; more columns or larger row groups than allowed; columns that neither the event
            format nor the mapping knows.
    """
    with _open(file, ()) as opened:
        try:
            metadata, schema = opened.metadata, opened.schema_arrow
            groups = _groups(file, metadata)
            expanding = _expanding(metadata, schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise Rejected(f"{file.path} is no readable Parquet file: {error}") from error
    names = list(schema.names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Rejected(f"{file.path}: two columns are named {twice[0]!r}: rename one")
    convert = row_converter(names, mapping, defaults, file.path)
    return ParquetFile(file, settings, tuple(names), convert, groups, expanding)


def row_converter(
    names: Sequence[str], mapping: ColumnMapping | None, defaults: Mapping[str, Any], path: object
) -> Convert:
    """What rows of these columns become.

    Raises:
        Rejected: columns that neither the event format nor the mapping knows.
    """
    if mapping is None:
        refuse_foreign(names, path)
        return lambda number, row: [RawRecord((number,), json_bytes(nest_columns(row, defaults)))]
    mapping.check_columns(names, prefixes=True)
    mapped = compile_mapping(mapping, lookup, defaults)
    return lambda number, row: [RawRecord((number, k), payload) for k, payload in mapped.events(row)]


def _open(file: InputFile, expanding: Sequence[str]) -> pq.ParquetFile:
    """Open with a small read buffer; `expanding` columns stay dictionaries, so that one long text is held once."""
    try:
        return pq.ParquetFile(
            str(file.path),
            buffer_size=file.limits.block_bytes,
            pre_buffer=False,
            read_dictionary=list(expanding),
            thrift_string_size_limit=file.limits.metadata_bytes,
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{file.path} is no readable Parquet file: {error}") from error


def _groups(file: InputFile, metadata: pq.FileMetaData) -> tuple[Group, ...]:
    limits = file.limits
    if metadata.num_columns > limits.columns:
        raise Rejected(f"{file.path}: {metadata.num_columns:,} columns; the limit is {limits.columns:,}")
    groups: list[Group] = []
    rows_before = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        columns = [group.column(at) for at in range(group.num_columns)]
        declared = max(group.total_byte_size, sum(column.total_uncompressed_size for column in columns))
        if declared > limits.row_group_bytes or min(group.num_rows, declared) < 0:
            limit = f"the limit is {limits.row_group_bytes:,}"
            raise Rejected(f"{file.path}: row group {index} declares {declared:,} bytes; {limit}")
        stored = sum(column.total_compressed_size for column in columns)
        groups.append(Group(index, rows_before, group.num_rows, stored))
        rows_before += group.num_rows
    return tuple(groups)


def _expanding(metadata: pq.FileMetaData, schema: pa.Schema) -> tuple[str, ...]:
    """Text columns with a dictionary: a few stored bytes can stand for any number of long texts."""
    columns = zip(schema.names, schema.types, strict=True)
    texts = {name for name, kind in columns if pa.types.is_string(kind) or pa.types.is_binary(kind)}
    found: set[str] = set()
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for at in range(group.num_columns):
            column = group.column(at)
            if column.path_in_schema in texts and any("DICTIONARY" in name for name in column.encodings):
                found.add(column.path_in_schema)
    return tuple(sorted(found))
