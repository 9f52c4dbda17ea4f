"""Change capture: envelopes of Debezium's PostgreSQL connector, from the tables of configs/cdc/postgres.sql, to events.

    (value of a Kafka record) ─ changes ─► events with their positions, a floor │ why it is none

A version is (LSN of the last commit before the change, LSN of the change): the order in which transactions took
effect, then the order within one. Neither alone would do (docs/adr/0008): a change may be written to the log long
before its transaction commits, and a row that is read again while that transaction is open has a later LSN and an
older value. What the initial snapshot reads comes at (its LSN, 0). Changes of the first transaction after it name no
last commit: `SnapshotLsn` carries the snapshot's on to them, and belongs to the position at which reading goes on.

Every envelope gives the same events whenever it is read; one that is sent again is a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from actors.connectors.base import json_bytes
from cluster.errors import BadRecord

TABLES = {"entities": "entity", "relationships": "relationship", "claims": "claim"}
"""Table → kind of its rows."""
UNAVAILABLE = "__debezium_unavailable_value"
"""What stands for a large value that did not change, where the table's replica identity is not FULL."""
KEY = ("tenant", "case", "type", "id")
_ENDS = {"relationship": (("from", "from"), ("to", "to")), "claim": (("subject", "subject"),), "entity": ()}
_TRUNCATE = "t"
_LAST = ("last", "last_in_data_collection")
"""Of `source.snapshot`: with this row a table has been read whole, by an initial snapshot."""
_MAX_LSN, _LSN_DIGITS, _SHOWN_CHARACTERS = 2**63 - 1, 19, 200
_UPSERTS = {"r": "upsert", "c": "upsert", "u": "upsert", "d": "delete"}
Row = Mapping[str, Any]


class _Source(msgspec.Struct):
    table: str
    sequence: str | None = None
    lsn: int | None = None
    snapshot: str | bool = False


class _Envelope(msgspec.Struct):
    op: str
    source: _Source
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class _WithSchema(msgspec.Struct):
    payload: _Envelope | None


_read = msgspec.json.Decoder(_Envelope).decode
_read_with_schema = msgspec.json.Decoder(_WithSchema).decode
_read_sequence = msgspec.json.Decoder(tuple[str | None, str | None]).decode


@dataclass(frozen=True, slots=True)
class Floor:
    """A table was emptied, or read whole again by an initial snapshot: what it said before this position is gone.

    Args:
        position: as those of events. Of a snapshot, the one that all its rows stand at.
    """

    table: str
    position: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one Kafka record says.

    Args:
        payloads: events as JSON, in the order in which they have to be applied; none for a tombstone.
        snapshot_lsn: what the next record of the same Kafka partition has to be read with.
        whole: of an update, whether it says the row before it, as under REPLICA IDENTITY FULL; None: no update.
    """

    payloads: tuple[bytes, ...]
    floor: Floor | None
    snapshot_lsn: int
    whole: bool | None = None


def changes(value: bytes | None, snapshot_lsn: int, table: str | None = None) -> Changes:
    """The changes of one record of a table's topic.

    Args:
        value: the record's value, with or without its schema; None: a tombstone.
        snapshot_lsn: of the record before in the same Kafka partition; 0 before the first.
        table: the only one whose changes are wanted; None: any of `TABLES`.

    Raises:
        BadRecord: it is no envelope, of no such table, without an LSN, or lacks a value that the connector did not
            have. Reading goes on with the same `snapshot_lsn`.
    """
    if value is None:
        return Changes((), None, snapshot_lsn)
    envelope = _envelope(value)
    if envelope is None:
        return Changes((), None, snapshot_lsn)
    source = envelope.source
    kind = TABLES.get(source.table)
    if kind is None:
        raise BadRecord("schema", f"table {source.table!r}: changes of {', '.join(TABLES)} are read")
    if table is not None and source.table != table:
        raise BadRecord(
            "schema", f"table {source.table!r} in the topic of table {table!r}: give it a stream of its own"
        )
    position, snapshot_lsn = _position(envelope, snapshot_lsn)
    if envelope.op == _TRUNCATE:
        return Changes((), Floor(source.table, position), snapshot_lsn)
    op = _UPSERTS.get(envelope.op)
    row = envelope.before if op == "delete" else envelope.after
    if op is None or row is None:
        raise BadRecord("schema", f"op {envelope.op!r} of table {source.table} with before or after missing")
    events = [_event(kind, op, row, position)]
    if envelope.op == "u" and envelope.before is not None and _has_moved(envelope.before, row):
        events.insert(0, _event(kind, "delete", envelope.before, position))
    floor = Floor(source.table, position) if source.snapshot in _LAST else None
    whole = envelope.before is not None if envelope.op == "u" else None
    return Changes(tuple(map(json_bytes, events)), floor, snapshot_lsn, whole)


def _envelope(value: bytes) -> _Envelope | None:
    try:
        if value.startswith(b'{"schema":'):
            return _read_with_schema(value).payload
        return _read(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        wrong = "schema" if isinstance(error, msgspec.ValidationError) else "decode"
        raise BadRecord(wrong, f"no envelope of Debezium: {error}") from error


def _position(envelope: _Envelope, snapshot_lsn: int) -> tuple[tuple[int, int], int]:
    """(version, the snapshot's LSN for what follows)."""
    source = envelope.source
    commit, change = _sequence(source)
    if source.snapshot not in (False, "false", "incremental"):
        return (change, 0), change
    return (snapshot_lsn or change if commit is None else commit, change), snapshot_lsn


def _sequence(source: _Source) -> tuple[int | None, int]:
    try:
        commit, change = _read_sequence(source.sequence or "")
        if change is None:
            raise ValueError("no LSN")
        return None if commit is None else _lsn(commit), _lsn(change)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        told = (source.sequence or "")[:_SHOWN_CHARACTERS]
        raise BadRecord("schema", f"source.sequence {told!r} names no LSN: {str(error)[:_SHOWN_CHARACTERS]}") from error


def _lsn(text: str) -> int:
    """Raises ValueError for what no log of a database holds, nor the control store's columns."""
    if len(text) > _LSN_DIGITS or not 0 <= (lsn := int(text)) <= _MAX_LSN:
        raise ValueError(f"an LSN is an integer from 0 to {_MAX_LSN:,}")
    return lsn


def _has_moved(before: Row, after: Row) -> bool:
    """Whether a row is another thing now; what was before is known whole only under REPLICA IDENTITY FULL."""
    return all(name in before for name in KEY) and any(before[name] != after.get(name) for name in KEY)


def _event(kind: str, op: str, row: Row, position: tuple[int, int]) -> dict[str, Any]:
    event: dict[str, Any] = {"kind": kind, "op": op, "position": position}
    for name in KEY:
        event[name] = row.get(name)
    if op == "delete":
        return event
    event["props"] = _json(row, "props")
    event["event_time"] = row.get("event_time")
    for name, prefix in _ENDS[kind]:
        event[name] = {"type": row.get(f"{prefix}_type"), "id": row.get(f"{prefix}_id")}
    if kind == "claim":
        event["predicate"] = row.get("predicate")
        event["value"] = _json(row, "value")
        event["confidence"] = row.get("confidence")
    return event


def _json(row: Row, column: str) -> Any:
    """A jsonb column, which comes as text."""
    text = row.get(column)
    if text is None:
        return None
    if text == UNAVAILABLE:
        raise BadRecord(
            "schema",
            f"column {column!r} did not change and is not in the envelope: ALTER TABLE … REPLICA IDENTITY FULL, then"
            " read the table again",
        )
    if not isinstance(text, str):
        raise BadRecord("schema", f"column {column!r}: jsonb comes as text, not as {type(text).__name__}")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRecord("schema", f"column {column!r} is no JSON: {error}") from error
