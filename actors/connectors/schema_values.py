"""Records that name their schema, in the wire format of Confluent's serialisers, as JSON that the stages take.

0, the schema's number in 4 bytes, a value ─ wire ─► (number, value) ─ values_of(schema).json ─► JSON ─► event_of
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from actors.connectors.base import json_bytes
from actors.connectors.schema_handlers import Handler, installed
from cluster.errors import BadRecord, Rejected
from cluster.model import Event
from cluster.streams.avro_changes import Changes, avro_changes
from cluster.streams.json_changes import json_changes
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import Schema

_HEAD_BYTES = 5
EVENT_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Event))


class Values(Protocol):
    """Reads what was written by one schema."""

    def read(self, payload: bytes) -> Any:
        """The value. Raises BadRecord."""

    def json(self, payload: bytes) -> bytes:
        """The value as JSON. Raises BadRecord."""


def wire(value: bytes) -> tuple[int, bytes]:
    """(number of its schema, payload). Raises BadRecord for what no serialiser of a registry wrote."""
    if len(value) < _HEAD_BYTES or value[0] != 0:
        raise BadRecord("decode", "it names no schema: it begins with no 0 and four bytes of a schema's number")
    return int.from_bytes(value[1:_HEAD_BYTES]), value[_HEAD_BYTES:]


def values_of(schema: Schema) -> Values:
    """What reads a schema's values. Raises Rejected where nothing does."""
    if schema.kind == "AVRO":
        from actors.connectors.avro_values import AvroValues

        return AvroValues(schema)
    if schema.kind == "JSON":
        from actors.connectors.json_values import JsonValues

        return JsonValues(schema)
    raise Rejected(f"schemas of type {schema.kind} are not read: Avro and JSON Schema are")


def record_of(spec: StreamSpec, schema: Schema, subject: str, version: int) -> Callable[[bytes], bytes]:
    """What makes of a payload the value that the stream's format has as JSON. It raises BadRecord, and Rejected where
    a handler fails.

    Args:
        subject, version: of the schema: by them a handler is found.

    Raises:
        Rejected: nothing reads the schema.
    """
    values = values_of(schema)
    if spec.format == "debezium":
        return values.json
    handler = installed().of(subject, version)
    if handler is None:
        return lambda payload: json_bytes(event_of(values.read(payload)))
    return lambda payload: handled(handler, msgspec.json.decode(values.json(payload)), f"{subject} version {version}")


def handled(handler: Handler, record: Any, read: str) -> bytes:
    """The event that a handler makes of a record, as JSON.

    Args:
        read: what the handler is for.

    Raises:
        BadRecord: the handler refuses the record. Rejected: the handler has failed; nothing of the record is told.
    """
    try:
        return json_bytes(handler(record))
    except BadRecord:
        raise
    except Exception as error:
        raise Rejected(f"the handler of {read} fails with {type(error).__name__}: put it right, and restart") from error


def event_of(record: Any) -> Mapping[str, Any]:
    """The fields of an event that a record has; null says nothing, and what no event has is left out."""
    if not isinstance(record, dict):
        raise BadRecord("schema", f"an event is a record with fields, not {type(record).__name__}")
    return {name: value for name, value in record.items() if name in EVENT_FIELDS and value is not None}


def differences(earlier: Schema, later: Schema) -> list[str]:
    """What either of two schemas does not read of what the other writes. Raises Rejected for one that is not read."""
    ahead, back = changes_between(earlier, later).breaking, changes_between(later, earlier).breaking
    return [*(f"by the earlier schema, what this one writes: {told}" for told in ahead),
            *(f"by this schema, what the earlier one wrote: {told}" for told in back)]  # fmt: skip


def changes_between(earlier: Schema, later: Schema) -> Changes:
    """How a later schema differs, for who reads by the earlier. Raises Rejected for one that is not read."""
    if earlier.kind != later.kind:
        return Changes([f"it is written as {later.kind}, and read as {earlier.kind}"])
    return avro_changes(earlier, later) if later.kind == "AVRO" else json_changes(earlier, later)
