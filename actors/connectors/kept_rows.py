"""A row that was kept for its dead letter, read again: as the file's reading would, or with another mapping.

reader = row_reader(source.row_form, mapping, defaults)     of the file that the row is from
reader(position, payload) → records, at the positions that the file's reading would have given them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from actors.connectors import csv_rows, parquet
from actors.connectors.base import FileLimits, Position, RawRecord
from actors.connectors.csv_scan import BadRow, scan
from actors.connectors.jsonl import line_converter
from actors.connectors.lines import Block
from actors.connectors.mapping import ColumnMapping
from actors.connectors.parquet_values import plain_row, row_again
from actors.connectors.rows import compile_mapping, lookup
from actors.connectors.stix import object_records
from cluster.errors import BadRecord, Rejected

RowReader = Callable[[Position, bytes], list[RawRecord]]
"""(the row's position, its bytes) → its records, all or none. Raises BadRecord."""


def row_reader(form: Mapping[str, Any], mapping: ColumnMapping | None, defaults: Mapping[str, Any]) -> RowReader:
    """How rows of a file are read again.

    Args:
        form: `FileSource.row_form` of the file.
        mapping: how a row becomes events; None: it has the event's fields.
        defaults: fields of the event for what a row leaves out.

    Raises:
        Rejected: the mapping names a column that the file lacks, or it takes none; or the form is unknown.
    """
    match form.get("format"):
        case "csv":
            return _csv(form, mapping, defaults)
        case "jsonl":
            mapped = None if mapping is None else compile_mapping(mapping, lookup, defaults)
            convert = line_converter(mapped, defaults)
            return lambda at, row: [RawRecord(at, row)] if convert is None else convert(at[0], row)
        case "parquet":
            make = parquet.row_converter(form["columns"], mapping, defaults, "the row's file")
            return lambda at, row: make(at[0], plain_row(row_again(row)))
        case "stix" if mapping is None:
            return lambda at, row: object_records(at[0], row, defaults)
        case "stix":
            raise Rejected("a STIX object takes no mapping: it says itself what it is")
    raise Rejected("it was kept by another version, which did not say how to read it again; ingest the file again")


def _csv(form: Mapping[str, Any], mapping: ColumnMapping | None, defaults: Mapping[str, Any]) -> RowReader:
    columns, delimiter = tuple(form["columns"]), form["delimiter"]
    convert = csv_rows.row_converter(columns, mapping, defaults, "the row's file")

    def read(at: Position, kept: bytes) -> list[RawRecord]:
        limits = FileLimits(line_bytes=len(kept) + 1)
        rows = list(chain.from_iterable(scan([Block(at[0], kept)], delimiter, limits)))
        if len(rows) != 1:
            raise BadRecord("schema", f"{len(rows)} rows; a dead letter holds one")
        row = rows[0]
        if isinstance(row, BadRow):
            raise BadRecord(row.error_class, row.problem)
        if len(row.cells) != len(columns):
            raise BadRecord("schema", f"{len(row.cells)} cells, and the header has {len(columns)} columns")
        return convert(row)

    return read
