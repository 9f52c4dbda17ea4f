"""How far a partition of a stream is read: offsets in the control store, bad records as their tenants' dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from actors.admission import Clock
from actors.connectors import BadRaw, Position
from actors.connectors.topic import TopicBatch
from actors.ingest import DeadRecord
from actors.letter_rows import ENCODED, ENVELOPE, EVENT, HOLDS, OF_TABLE, READ_WITH, TIMELINE
from cluster import batch
from cluster.errors import Conflict, Fenced
from cluster.model import floor_record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_streams import Read
from cluster.stores.log import Append
from cluster.streams.model import Stream, StreamPartition, StreamSpec


class StreamProgress:
    """`actors.ingest.Progress` of one partition of a stream, under one lease.

    Args:
        token: of the partition's lease.
        clock: seconds since 1970.
        keep_bytes: of a bad record.
    """

    def __init__(
        self, control: ControlStore, stream: Stream, part: StreamPartition, token: int, clock: Clock, keep_bytes: int
    ) -> None:
        self._control, self._stream, self._part = control, stream, part
        self._clock, self._keep_bytes = clock, keep_bytes
        self._read = Read(part.partition, token, part.epoch, part.offset, part.offset, part.carried)
        self._batch = TopicBatch(part.carried)
        self._leader_epoch = part.leader_epoch

    @property
    def offset(self) -> int:
        """The next to read."""
        return self._read.before

    @property
    def carried(self) -> int:
        """What the next record has to be read with."""
        return self._batch.carried

    @property
    def origin_epoch(self) -> int:
        """Of records that bring positions of their own: offsets do not order them, so the range is not theirs."""
        return self._stream.timeline_epoch

    @property
    def leader_epoch(self) -> int:
        """Of the leader that appended the record before `offset`; -1: not known."""
        return self._leader_epoch

    def reading(self, batch: TopicBatch, offset: int, record_ms: int, leader_epoch: int) -> None:
        """What the next calls are about: a batch that ends before `offset`.

        Args:
            leader_epoch: of the last record; -1: not known.
        """
        self._batch, self._read = batch, replace(
            self._read, offset=offset, carried=batch.carried, record_ms=record_ms, leader_epoch=leader_epoch,
            partial=batch.partial,
        )  # fmt: skip

    def keep(self, dead: Sequence[DeadRecord]) -> None:
        """Keep bad records durably. Safe to call twice."""
        by_tenant: dict[str, list[NewDeadLetter]] = {}
        for record in dead:
            tenant = tenant_of(record.item.payload, self._stream.spec.tenants)
            by_tenant.setdefault(tenant, []).append(self._letter(record))
        for tenant, letters in by_tenant.items():
            self._control.dead_letters.add(tenant, letters, self._clock(), self._keep_bytes)

    def commit(self, position: Position, acked: int, dead: int) -> None:
        """Move the partition on. Safe to call twice."""
        read = replace(self._read, acked=acked, dead=dead)
        try:
            self._control.streams.commit(self._stream.spec.name, read)
        except Conflict as error:
            stands = self._stands()
            if stands == (read.epoch, read.before):
                raise
            if stands != (read.epoch, read.offset):  # an earlier call did not succeed after all
                raise Fenced(f"{self._where()}: another worker has read on; leave it to it") from error
        self._read, self._leader_epoch = replace(self._read, before=read.offset), read.leader_epoch

    def _stands(self) -> tuple[int, int] | None:
        """(epoch, offset) of the partition as it is kept."""
        parts = self._control.streams.partitions(self._stream.spec.name)
        return next(((p.epoch, p.offset) for p in parts if p.partition == self._part.partition), None)

    def _where(self) -> str:
        return f"stream {self._stream.spec.name}, partition {self._part.partition}"

    def _letter(self, dead: DeadRecord) -> NewDeadLetter:
        item, bad, part = dead.item, dead.bad, self._part
        headers: dict[str, Any] = {
            "topic": self._stream.spec.topic, "partition": part.partition, "offset": item.position[0], HOLDS: EVENT,
        }  # fmt: skip
        if item.position in self._batch.read_with:
            headers |= {
                HOLDS: ENVELOPE,
                OF_TABLE: self._stream.spec.table,
                READ_WITH: self._batch.read_with[item.position],
            }
        if item.position in self._batch.encoded:
            headers[HOLDS] = ENCODED
        name, epoch = str(part.partition), part.epoch
        if self._stream.spec.format == "debezium":  # places are offsets of the range, whatever the epoch of the record
            name, epoch = f"{name}/{part.epoch}", self.origin_epoch
        elif self.origin_epoch != epoch:
            headers[TIMELINE] = self.origin_epoch
        return NewDeadLetter(
            self._stream.spec.name, epoch, item.position, bad.error_class, bad.reason, item.payload,
            partition=name, type=bad.type, headers=headers,
            payload_bytes=item.whole_bytes if isinstance(item, BadRaw) else 0,
        )  # fmt: skip


def floor_entries(spec: StreamSpec, version: str, partitions: int) -> list[Append]:
    """A floor on every partition of the log, for every tenant: what the stream said before is taken back from all."""
    return [
        Append(partition, batch.encode([floor_record(tenant, spec.name, "", version, partition)]), 0)
        for tenant in spec.tenants
        for partition in range(partitions)
    ]


def tenant_of(payload: bytes, tenants: Sequence[str]) -> str:
    """Whose a bad record is: the tenant that it names if that is one of the stream's, else the stream's owner."""
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return tenants[0]
    for name in ("payload", "after", "before"):
        inner = found.get(name) if isinstance(found, dict) else None
        found = inner if isinstance(inner, dict) and inner else found
    named = found.get("tenant") if isinstance(found, dict) else None
    return named if isinstance(named, str) and named in tenants else tenants[0]
