"""How a reader of topics understands the batches of a partition."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from cluster.errors import Corrupt, IntelGraphError, Rejected
from cluster.stores.kafka_batch import (
    Oversized,
    UnknownCodec,
    base_offset,
    batches,
    check_old,
    head,
    magic,
    one_by_one,
    unpacked,
)
from cluster.stores.kafka_fetch import Part
from cluster.stores.kafka_stream_records import StreamRead, StreamRecord
from cluster.stores.kafka_unread import Unread
from cluster.stores.kafka_varint import Malformed

_UNREADABLE = (KafkaError, ValueError, IndexError, TypeError, struct.error)
"""What aiokafka raises where bytes are not what their format says; ValueError is `Malformed`, too."""


class UnreadRecords(Unread[StreamRecord]):
    """Records of a partition that were fetched and not taken yet, without those of aborted transactions.

    Args:
        at: records before this offset are left out: a batch comes whole even if only its end was asked for.
        most_bytes: of one batch, once it is unpacked.
    """

    def __init__(self, partition: int, part: Part, at: int, most_bytes: int) -> None:
        super().__init__(len(part.records))
        self._batches: Iterator[memoryview] = batches(part.records)
        self._partition, self._at, self._most_bytes = partition, at, most_bytes
        self._to_abort = sorted(part.aborted, key=lambda one: one[1], reverse=True)
        self._aborted: set[int] = set()
        self._next, self._end = at, part.end
        self._passed = deque[tuple[int, int]]()  # by batch: the offset behind it, its leader's epoch
        self._failed: IntelGraphError | None = None

    def taken(self, limit_records: int, limit_bytes: int) -> StreamRead:
        """The next records, within the limits, and where to go on."""
        records = self.take(limit_records, limit_bytes)
        empty = self.empty()
        following = self._next if empty else records[-1].offset + 1
        while len(self._passed) > 1 and self._passed[0][0] < following:
            self._passed.popleft()
        leader_epoch = self._passed[0][1] if self._passed else -1
        return StreamRead(records, following, self._end, leader_epoch, self._failed if empty else None)

    def _decoded(self) -> list[StreamRecord] | None:
        """What cannot be read ends it; what came before is taken first."""
        if self._failed is not None:
            return None
        try:
            batch = next(self._batches, None)
            return None if batch is None else self._seen(batch)
        except Malformed as error:
            self._failed = self._damaged(self._next, error, self._next)
        except IntelGraphError as error:
            self._failed = error
        return None

    def _seen(self, packed: memoryview) -> list[StreamRecord]:
        """The records of a batch that readers may see.

        Raises:
            Corrupt: it is damaged.
            Rejected: it is packed in a way that is not known here, or is too large once it is unpacked.
        """
        first, where = base_offset(packed), f"partition {self._partition}, offset {base_offset(packed)}"
        following = self._next
        try:
            old = magic(packed) < 2
            leader_epoch = -1 if old else head(packed).leader_epoch
            batch: Any = LegacyRecordBatch(packed, magic(packed)) if old else DefaultRecordBatch(packed)
            following = batch.next_offset
            if not batch.validate_crc():
                raise Malformed("its checksum is another")
            seen = self._visible(packed, batch, old)
        except UnknownCodec as error:
            raise Rejected(
                f"{where}: compressed with codec {error.number}, which is not known here; the next batch"
                f" begins at offset {following}"
            ) from error
        except Oversized as error:
            raise Rejected(
                f"{where}: its batch takes more than {self._most_bytes:,} bytes once it is unpacked; raise"
                f" streams.batch_bytes, if it is meant to; the next batch begins at offset {following}"
            ) from error
        except _UNREADABLE as error:
            raise self._damaged(first, error, following) from error
        self._next = max(self._next, batch.next_offset)
        self._passed.append((self._next, leader_epoch))
        return seen

    def _visible(self, packed: memoryview, batch: Any, old: bool) -> list[StreamRecord]:
        while self._to_abort and self._to_abort[-1][1] < batch.next_offset:
            self._aborted.add(self._to_abort.pop()[0])
        if batch.is_control_batch:
            if any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch):
                self._aborted.discard(batch.producer_id)
            return []
        if batch.is_transactional and batch.producer_id in self._aborted:
            return []
        if old:
            check_old(packed, self._most_bytes)
            return [_record(record) for record in batch if record.offset >= self._at]
        return [record for record in _records(packed, self._most_bytes) if record.offset >= self._at]

    def _item_bytes(self, item: StreamRecord) -> int:
        headers = sum(len(name) + len(value) for name, value in item.headers)
        return len(item.key or b"") + len(item.value or b"") + headers

    def _damaged(self, offset: int, error: Exception, following: int) -> Corrupt:
        behind = f" (the next batch should begin at offset {following})" if following > offset else ""
        return Corrupt(
            f"partition {self._partition}: the batch at offset {offset} is damaged ({error}); have the brokers' files"
            f" restored{behind}"
        )


def _records(packed: memoryview, most_bytes: int) -> list[StreamRecord]:
    if not head(packed).records:  # compaction leaves the head of a batch that has lost all of them
        return []
    plain = unpacked(packed, most_bytes)
    try:
        return [_record(record) for record in DefaultRecordBatch(plain)]
    except (CorruptRecordException, UnicodeDecodeError):
        return [_record(one, one.bad) for one in one_by_one(plain)]


def _record(record: Any, bad: str = "") -> StreamRecord:
    headers = [(name, value or b"") for name, value in record.headers]
    at_ms = -1 if record.timestamp is None else record.timestamp
    return StreamRecord(record.offset, at_ms, record.key, record.value, headers, bad)
