"""What a reader of topics gives and raises, and how it understands the batches of a partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from cluster.errors import Corrupt, NotFound, Rejected
from cluster.stores.kafka_fetch import Part
from cluster.stores.kafka_unread import Unread

_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class TopicLook(NamedTuple):
    """A topic as it stands now.

    Args:
        id: hex, drawn by the cluster when the topic was made: one made again under the name has another.
        first: first offset that can be read, by partition.
        end: offset behind the last record that a reader may see, by partition: an open transaction holds back all
            that follows it.
    """

    name: str
    id: str
    first: Mapping[int, int]
    end: Mapping[int, int]


class StreamRecord(NamedTuple):
    """A record of a topic.

    Args:
        timestamp_ms: ms since 1970, by its producer's clock or the broker's, as the topic says; -1 for none.
        value: None for a tombstone.
        headers: in the order of the record; a name may come twice, and a value that is none is empty.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class StreamRead(NamedTuple):
    """What was read of one partition.

    Args:
        records: in order; offsets may have gaps. None, where there is nothing but what readers do not see.
        next: offset to go on at, behind all that was looked at: records, aborted ones, the marks of transactions.
        end: as `TopicLook.end`, when the leader was last asked.
    """

    records: list[StreamRecord]
    next: int
    end: int


class StreamGone(NotFound):
    """The brokers do not know the topic's id: it was deleted, and one of the same name would be another topic."""

    def __init__(self, topic_id: str) -> None:
        super().__init__(
            f"the topic of id {topic_id} was deleted, and one that was made again under its name is another: look the"
            " name up again"
        )
        self.topic_id = topic_id

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.topic_id,)


class OffsetLost(Corrupt):
    """A partition lacks the offset that was asked for: retention removed it, or the brokers lost its end.

    Args:
        asked: the offset.
        first, end: what the partition has: from `first` on, below `end`.
    """

    def __init__(self, partition: int, asked: int, first: int, end: int) -> None:
        why = "its first ones were removed (retention)" if asked < first else "the brokers have lost its end"
        super().__init__(f"partition {partition} has the offsets {first} to {end}, and {asked} was asked for: {why}")
        self.partition, self.asked, self.first, self.end = partition, asked, first, end

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.partition, self.asked, self.first, self.end)


class UnreadRecords(Unread[StreamRecord]):
    """Records of a partition that were fetched and not taken yet, without those of aborted transactions.

    Args:
        at: records before this offset are left out: a batch comes whole even if only its end was asked for.

    Attributes:
        next: offset behind the last batch that was decoded.
        end: as the leader told with the fetch.
    """

    def __init__(self, partition: int, part: Part, at: int) -> None:
        super().__init__(part.records)
        self._partition, self._at = partition, at
        self._to_abort = sorted(part.aborted, key=lambda one: one[1], reverse=True)
        self._aborted: set[int] = set()
        self.next, self.end = at, part.end

    def taken(self, limit_records: int, limit_bytes: int) -> StreamRead:
        """The next records, within the limits, and where to go on. Raises as `take` does."""
        records = self.take(limit_records, limit_bytes)
        return StreamRead(records, self.next if self.empty() else records[-1].offset + 1, self.end)

    def _decoded(self, batch: Any) -> list[StreamRecord]:
        """The records of the next batch that readers may see.

        Raises:
            Corrupt: it is damaged.
            Rejected: it is compressed in a way that this installation cannot read.
        """
        if not batch.validate_crc():
            raise self._damaged(batch)
        try:
            seen = self._seen(batch)
        except UnsupportedCodecError as error:
            codec = _CODECS.get(batch.compression_type, f"codec {batch.compression_type}")
            raise Rejected(
                f"partition {self._partition}, offset {batch.base_offset}: compressed with {codec}, which is not"
                " installed: install the locked dependencies (cramjam is among them)"
            ) from error
        except (CorruptRecordException, UnicodeDecodeError) as error:
            raise self._damaged(batch) from error
        self.next = max(self.next, batch.next_offset)
        return seen

    def _seen(self, batch: Any) -> list[StreamRecord]:
        while self._to_abort and self._to_abort[-1][1] < batch.next_offset:
            self._aborted.add(self._to_abort.pop()[0])
        if batch.is_control_batch:
            if any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch):
                self._aborted.discard(batch.producer_id)
            return []
        if batch.is_transactional and batch.producer_id in self._aborted:
            return []
        return [_record(record) for record in batch if record.offset >= self._at]

    def _item_bytes(self, item: StreamRecord) -> int:
        headers = sum(len(name) + len(value) for name, value in item.headers)
        return len(item.key or b"") + len(item.value or b"") + headers

    def _damaged(self, batch: Any) -> Corrupt:
        return Corrupt(
            f"partition {self._partition}: the batch at offset {batch.base_offset} is damaged; have the brokers' files"
            " restored"
        )


def _record(record: Any) -> StreamRecord:
    headers = [(name, value or b"") for name, value in record.headers]
    at_ms = -1 if record.timestamp is None else record.timestamp
    return StreamRecord(record.offset, at_ms, record.key, record.value, headers)
