"""Records of a topic as raw events: what every format of a stream gives.

A record's place is (offset,), or for an envelope of change capture, which may make several events, (offset, number
from 1). Places name dead letters; an event of change capture brings its own position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from actors.connectors.base import BadRaw, Item, Position, RawRecord
from actors.connectors.debezium import changes
from cluster.errors import BadRecord
from cluster.streams.model import StreamSpec


class TopicRecord(Protocol):
    """One record as a broker gives it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def value(self) -> bytes | None:
        """What it says; None for a tombstone."""

    @property
    def bad(self) -> str:
        """Why it is no record that can be read; empty: it is one."""


class TimedRecord(TopicRecord, Protocol):
    """A record with its time."""

    @property
    def timestamp_ms(self) -> int:
        """As producer or broker gave it, ms since 1970."""


Decode = Callable[[int, bytes], bytes]
"""(offset, value) → the value as JSON. Raises BadRecord: its schema did not write it, or refuses it."""


def as_it_is(_: int, value: bytes) -> bytes:
    """Of records that are JSON and nothing else."""
    return value


@dataclass
class TopicBatch:
    """What some consecutive records of a partition say.

    Args:
        carried: what the next record has to be read with (`StreamPartition.carried`).
        floors: positions at which the table was emptied, or read whole again: what it said before is gone.
        read_with: by place, what a bad envelope was read with, so that it can be read again.
        partial: whether the last update came without the row before it; None: there was none.
        partial_updates: how many did.
        encoded: places of bad records that are kept as the topic holds them, not as JSON.
    """

    carried: int
    items: list[Item] = field(default_factory=list)
    floors: list[tuple[int, int]] = field(default_factory=list)
    read_with: dict[Position, int] = field(default_factory=dict)
    partial: bool | None = None
    partial_updates: int = 0
    encoded: set[Position] = field(default_factory=set)


def topic_batch(
    spec: StreamSpec, records: Iterable[TopicRecord], carried: int, keep_bytes: int, decode: Decode = as_it_is
) -> TopicBatch:
    """The records' events, in their order.

    Args:
        carried: of the record before.
        keep_bytes: what is kept of a bad record.
        decode: of values that are not JSON, or are held against a schema.
    """
    batch = TopicBatch(carried)
    add = _add_envelope if spec.format == "debezium" else _add_event
    for record in records:
        offset, value = record.offset, record.value
        try:
            if record.bad:
                raise BadRecord("decode", record.bad)
            decoded = None if value is None else decode(offset, value)
        except BadRecord as error:
            place = _add_bad(batch, spec, offset, value, keep_bytes, error)
            if decode is not as_it_is:
                batch.encoded.add(place)
        else:
            add(batch, spec, offset, decoded, keep_bytes)
    return batch


def _add_bad(
    batch: TopicBatch, spec: StreamSpec, offset: int, value: bytes | None, keep_bytes: int, error: BadRecord
) -> Position:
    place: Position = (offset, 1) if spec.format == "debezium" else (offset,)
    kept = value or b""
    whole = len(kept) if len(kept) > keep_bytes else 0
    batch.items.append(BadRaw(place, kept[:keep_bytes], error.error_class, error.reason, whole))
    if spec.format == "debezium":
        batch.read_with[place] = batch.carried
    return place


def _add_event(batch: TopicBatch, _: StreamSpec, offset: int, value: bytes | None, keep_bytes: int) -> None:
    place = (offset,)
    if value is None:
        batch.items.append(
            BadRaw(place, b"", "schema", "a record without value says nothing: a delete is an event too")
        )
    else:
        batch.items.append(RawRecord(place, value))


def _add_envelope(batch: TopicBatch, spec: StreamSpec, offset: int, value: bytes | None, keep_bytes: int) -> None:
    try:
        found = changes(value, batch.carried, spec.table)
    except BadRecord as error:
        _add_bad(batch, spec, offset, value, keep_bytes, error)
        return
    batch.carried = found.snapshot_lsn
    if found.whole is not None:
        batch.partial = not found.whole
        batch.partial_updates += batch.partial
    batch.items.extend(RawRecord((offset, number), event) for number, event in enumerate(found.payloads, 1))
    if found.floor is not None:
        batch.floors.append(found.floor.position)
