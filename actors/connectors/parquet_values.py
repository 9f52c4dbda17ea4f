"""Arrow values as what JSON can hold, in slices of rows that stay small."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import BadRecord

_SECONDS = "%Y-%m-%dT%H:%M:%SZ"


def rows_of(batch: pa.RecordBatch, slice_bytes: int) -> Iterator[dict[str, Any]]:
    """Each row without its nulls, its values as Arrow gives them (`plain_row`).

    Args:
        slice_bytes: how much the rows that are expanded at one time may take.
    """
    step = max(1, min(batch.num_rows, slice_bytes // max(1, _widest_row(batch))))
    names = batch.schema.names
    for start in range(0, batch.num_rows, step):
        columns = [_plain_column(column.slice(start, step)) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with values that JSON can hold.

    Raises:
        BadRecord: a value is NaN or infinite, or of no known type.
    """
    return {name: _plain(value, name) for name, value in row.items()}


def kept_row(row: Mapping[str, Any]) -> bytes:
    """A bad row for its dead letter: JSON, with `NaN` and `Infinity` where it has these (`row_again` reads them)."""
    return json.dumps(_shown(row), ensure_ascii=False).encode("utf-8", "replace")


def row_again(kept: bytes) -> dict[str, Any]:
    """What `kept_row` wrote.

    Raises:
        BadRecord: it wrote nothing of the kind.
    """
    try:
        row = json.loads(kept)
    except (ValueError, RecursionError) as error:
        raise BadRecord("decode", f"no JSON object: {error}") from error
    if not isinstance(row, dict):
        raise BadRecord("decode", "no JSON object")
    return row


def _shown(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _shown(item) for name, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    try:
        return _plain_scalar(value, "")
    except BadRecord:
        return str(value)


def _widest_row(batch: pa.RecordBatch) -> int:
    """Bytes that the longest row may take once its dictionaries are expanded."""
    widest: int = 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            texts = column.dictionary
            if len(texts) and (pa.types.is_string(texts.type) or pa.types.is_binary(texts.type)):
                widest += pc.max(pc.binary_length(texts)).as_py() or 0
    return int(widest + batch.nbytes // max(1, batch.num_rows))


def _plain_column(column: pa.Array) -> list[Any]:
    """A column as a list; whole columns of times and decimals are made text at once."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain_column(column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        try:
            return list(pc.strftime(column.cast(pa.timestamp(kind.unit, "UTC")), format=_SECONDS).to_pylist())
        except pa.ArrowException:  # a year that the calendar of the library does not have
            return [None if value is None else str(value) for value in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_decimal(kind) or pa.types.is_time(kind):
        return list(column.cast(pa.string()).to_pylist())
    if pa.types.is_date(kind) or pa.types.is_duration(kind):
        return list(column.cast(pa.string() if pa.types.is_date(kind) else pa.int64()).cast(pa.string()).to_pylist())
    return _nested(column) if pa.types.is_nested(kind) else list(column.to_pylist())


class _Unreadable:
    """Stands for a value that Python has no room for, such as a date in the year 5,877,641 inside a struct."""

    def __str__(self) -> str:
        return "(a date, time or duration out of range)"


def _nested(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist(maps_as_pydicts="lossy"))
    except (OverflowError, ValueError):  # one value: the others are good
        return [_read(value) for value in column]


def _read(value: pa.Scalar) -> Any:
    try:
        return value.as_py(maps_as_pydicts="lossy")
    except (OverflowError, ValueError):
        return _Unreadable()


def _plain(value: Any, column: str) -> Any:
    """A value that JSON can hold.

    Raises:
        BadRecord: it is NaN or infinite, or of no known type.
    """
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRecord("schema", f"column {column!r}: {value} is no finite number")
        return value
    if isinstance(value, list):
        return [None if item is None else _plain(item, column) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item, column) for name, item in value.items() if item is not None}
    return _plain_scalar(value, column)


def _plain_scalar(value: Any, column: str) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    if isinstance(value, tuple):
        return [None if item is None else _plain(item, column) for item in value]
    what = str(value) if isinstance(value, _Unreadable) else f"a {type(value).__name__}"
    raise BadRecord("schema", f"column {column!r}: {what} has no place in an event")
