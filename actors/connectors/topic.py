"""Records of a topic as raw events: what every format of a stream gives.

A record's place is (offset,), or for an envelope of change capture, which may make several events, (offset, number
from 1). Places name dead letters; an event of change capture brings its own position.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass
class TopicBatch:
    """What some consecutive records of a partition say.

    Args:
        carried: what the next record has to be read with (`StreamPartition.carried`).
        floors: positions at which the table was emptied, or read whole again: what it said before is gone.
        read_with: by place, what a bad envelope was read with, so that it can be read again.
        partial: whether the last update came without the row before it; None: there was none.
        partial_updates: how many did.
    """

    carried: int
    items: list[Item] = field(default_factory=list)
    floors: list[tuple[int, int]] = field(default_factory=list)
    read_with: dict[Position, int] = field(default_factory=dict)
    partial: bool | None = None
    partial_updates: int = 0


def topic_batch(spec: StreamSpec, records: Iterable[TopicRecord], carried: int, keep_bytes: int) -> TopicBatch:
    """The records' events, in their order.

    Args:
        carried: of the record before.
        keep_bytes: what is kept of a bad record.
    """
    batch = TopicBatch(carried)
    add = _add_envelope if spec.format == "debezium" else _add_event
    for record in records:
        if record.bad:
            _add_bad(batch, spec, record, keep_bytes, BadRecord("decode", record.bad))
        else:
            add(batch, spec, record, keep_bytes)
    return batch


def _add_bad(batch: TopicBatch, spec: StreamSpec, record: TopicRecord, keep_bytes: int, error: BadRecord) -> None:
    value, place = record.value or b"", (record.offset, 1) if spec.format == "debezium" else (record.offset,)
    whole = len(value) if len(value) > keep_bytes else 0
    batch.items.append(BadRaw(place, value[:keep_bytes], error.error_class, error.reason, whole))
    if spec.format == "debezium":
        batch.read_with[place] = batch.carried


def _add_event(batch: TopicBatch, spec: StreamSpec, record: TopicRecord, keep_bytes: int) -> None:
    place = (record.offset,)
    if record.value is None:
        batch.items.append(
            BadRaw(place, b"", "schema", "a record without value says nothing: a delete is an event too")
        )
    else:
        batch.items.append(RawRecord(place, record.value))


def _add_envelope(batch: TopicBatch, spec: StreamSpec, record: TopicRecord, keep_bytes: int) -> None:
    try:
        found = changes(record.value, batch.carried, spec.table)
    except BadRecord as error:
        _add_bad(batch, spec, record, keep_bytes, error)
        return
    batch.carried = found.snapshot_lsn
    if found.whole is not None:
        batch.partial = not found.whole
        batch.partial_updates += batch.partial
    batch.items.extend(RawRecord((record.offset, number), event) for number, event in enumerate(found.payloads, 1))
    if found.floor is not None:
        batch.floors.append(found.floor.position)
