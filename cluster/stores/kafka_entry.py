"""An entry of the log as a Kafka record: the value is its data, the rest is in headers."""

from __future__ import annotations

from typing import Any, NamedTuple

from aiokafka.record.memory_records import MemoryRecords

from cluster.errors import Corrupt
from cluster.stores.kafka_unread import Unread
from cluster.stores.log import Append, Entry, entry_as_read

_RECORDS, _APPENDED_MS, _TOTAL, _POLLED_MS = "n", "t", "c", "p"


class Message(NamedTuple):
    """One record to append."""

    value: bytes
    headers: list[tuple[str, bytes]]


def encoded(entry: Append, at_ms: int, total: int) -> Message:
    """The record of an entry.

    Args:
        at_ms: when it is appended, ms since 1970.
        total: records of the partition up to it, as its appender knows.
    """
    said = {_RECORDS: entry.records, _APPENDED_MS: at_ms, _TOTAL: total}
    if entry.polled_ms:
        said[_POLLED_MS] = entry.polled_ms
    return Message(bytes(entry.data), [(name, str(number).encode()) for name, number in said.items()])


def decoded(partition: int, record: Any) -> Entry:
    """The entry of a record.

    Raises:
        Corrupt: it is not one of ours.
    """
    headers = dict(record.headers)
    try:
        times = int(headers[_APPENDED_MS]), int(headers.get(_POLLED_MS, 0))
        return entry_as_read(record.offset + 1, record.value, int(headers[_RECORDS]), *times)
    except (KeyError, ValueError, TypeError) as error:
        raise _foreign(partition, record.offset + 1) from error


class UnreadEntries(Unread[Entry]):
    """Entries of the log that were fetched and not taken yet.

    Args:
        records: batches as they are stored; the last may be cut off.
        after: entries up to this number are left out: a batch comes whole even if only its end was asked for.
    """

    def __init__(self, partition: int, records: bytes, after: int) -> None:
        super().__init__(len(records))
        self._batches = MemoryRecords(records)
        self._partition, self._after = partition, after

    def _decoded(self) -> list[Entry] | None:
        """Raises Corrupt: a batch is damaged, or an entry is not one of ours."""
        if not self._batches.has_next():
            return None
        batch = self._batches.next_batch()
        if not batch.validate_crc():
            raise Corrupt(
                f"log partition {self._partition}: entry {batch.base_offset + 1} is damaged; restore its files"
            )
        if batch.is_control_batch:
            return []  # it takes a number, so what follows it is found to be no continuation
        return [decoded(self._partition, record) for record in batch if record.offset >= self._after]

    def _item_bytes(self, item: Entry) -> int:
        return len(item.data)


def total_of(partition: int, records: bytes) -> tuple[int, int]:
    """Number of the last entry of some batches, and the records of the partition up to it.

    Raises:
        Corrupt: it is not one of ours.
    """
    number, total = 0, b""
    batches = MemoryRecords(records)
    while batches.has_next():
        for record in batches.next_batch():
            number, total = record.offset + 1, dict(record.headers).get(_TOTAL) or b""
    if not total.isdigit():
        raise _foreign(partition, number)
    return number, int(total)


def _foreign(partition: int, number: int) -> Corrupt:
    return Corrupt(f"log partition {partition}: entry {number} is not one of ours; restore its files")
