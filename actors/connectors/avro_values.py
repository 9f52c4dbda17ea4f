"""Values written by an Avro schema, as JSON values: what our own JSON formats would say.

timestamps     RFC 3339 in UTC; local ones count as UTC        decimals   text, without exponent
dates, times   ISO 8601                                        uuid       text
bytes, fixed   base64                                          enums      their symbol
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType

from actors.connectors.base import json_bytes
from cluster.errors import BadRecord, Rejected
from cluster.streams.avro_shape import loaded, shape_of
from cluster.streams.schemas import Schema

_GARBLED = (ArithmeticError, LookupError, ValueError, TypeError, EOFError, struct.error)
"""What a reader meets in bytes that its schema did not write."""
Convert = Callable[..., Any]


class AvroValues:
    """Reads values of one schema. Raises Rejected for a schema that is not read."""

    def __init__(self, schema: Schema) -> None:
        self._floats = shape_of(schema).floats
        names: dict[str, Any] = {}
        try:
            for _, text in schema.parts:
                fastavro.parse_schema(loaded(text), named_schemas=names)
            self._schema = fastavro.parse_schema(loaded(schema.text), named_schemas=names)
        except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError) as error:
            raise Rejected(f"no Avro schema: {type(error).__name__}: {error}") from error

    def read(self, payload: bytes) -> Any:
        """The value, of what JSON has and of times, dates, UUIDs and bytes. Raises BadRecord."""
        file = BytesIO(payload)
        try:
            found = fastavro.schemaless_reader(file, self._schema, None)
        except _GARBLED as error:
            told = f"{type(error).__name__}: {error}".rstrip(": ")
            raise BadRecord("decode", f"its schema did not write it: {told}") from error
        if file.tell() != len(payload):
            raise BadRecord("decode", f"{len(payload) - file.tell():,} bytes behind the record: another schema's")
        if self._floats and any(not math.isfinite(number) for number in _floats(found)):
            raise BadRecord("schema", "NaN and infinities are no values")
        return found

    def json(self, payload: bytes) -> bytes:
        """The value as JSON. Raises BadRecord."""
        return json_bytes(self.read(payload))


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _floats(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _floats(inner)


def _as_utc(read: Convert) -> Convert:
    def local(*given: Any) -> datetime:
        found: datetime = read(*given)
        return found.replace(tzinfo=UTC)

    return local


def _as_text(read: Convert) -> Convert:
    def plain(*given: Any) -> str:
        found: Decimal = read(*given)
        return format(found, "f")

    return plain


def _nanoseconds(number: int, *_: Any) -> str:
    seconds, rest = divmod(number, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


# The library's own table of what a logical type becomes, of this process.
for _name in ("long-local-timestamp-millis", "long-local-timestamp-micros"):
    LOGICAL_READERS[_name] = _as_utc(LOGICAL_READERS[_name])
for _name in ("bytes-decimal", "fixed-decimal"):
    LOGICAL_READERS[_name] = _as_text(LOGICAL_READERS[_name])
LOGICAL_READERS["long-timestamp-nanos"] = LOGICAL_READERS["long-local-timestamp-nanos"] = _nanoseconds
