"""The event log on Kafka: one topic a generation, one partition a partition.

    entry   number = offset + 1; the value is the data; headers n (records), t (appended, ms), c (records so far),
            and p (polled, ms) where it was said

Offsets are without gaps, since nothing but entries takes one: no transactions, no compaction, an idempotent producer.
The topic is read and written by its id, so that another one of its name is never taken for it; where brokers older than
Kafka 4.1 take its name to append, an appender checks that the numbers go on from those that it knows. Trimming is
DeleteRecords; the disk is freed file by file, later.

**Durable** means on `min_in_sync` replicas, or, where there is one replica, synced to its disk.

Threads may share an instance. A child process has to open its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from cluster.config import LogSettings
from cluster.errors import Overloaded, Rejected, Unavailable
from cluster.stores.kafka_append import KafkaAppender
from cluster.stores.kafka_client import FIRST, NEXT, KafkaClient
from cluster.stores.kafka_counts import RecordCounts
from cluster.stores.kafka_entry import Message, UnreadEntries, encoded, total_of
from cluster.stores.kafka_errors import CAUGHT, LOG, MOVED, OFFSET_OUT_OF_RANGE, WHAT, translate
from cluster.stores.kafka_fetch import Part, fetch, without_errors
from cluster.stores.kafka_log_setup import Opened, begin, finish, read_known
from cluster.stores.kafka_loop import LoopThread
from cluster.stores.kafka_topic import CurrentTopic, TopicGone
from cluster.stores.kafka_unread import ReadAhead
from cluster.stores.log import Append, Entry, Generation, LogIdentity, LogLostTail, check_continuity, check_range

_USED_FOR_S = 1.0
"""How long a reading of the bytes used is believed; what is appended meanwhile is added to it."""
_CALL_TIMES = 1.5
"""Of `timeout_s`, for one call: a reading waits up to half of it, too."""

T = TypeVar("T")


class KafkaEventLog:
    """`EventLog` on Kafka; made by `cluster.stores.kafka_log_open.open_kafka_log`."""

    def __init__(
        self,
        thread: LoopThread,
        client: KafkaClient,
        settings: LogSettings,
        opened: Opened,
        clock_ms: Callable[[], int],
        mending: bool,
    ) -> None:
        self._thread, self._client, self._settings, self._clock_ms = thread, client, settings, clock_ms
        self._identity, self._generations = opened.known.identity, opened.known.generations
        self._meta, self._mending, self._all = opened.meta, mending, len(opened.topic.leaders)
        self._current = CurrentTopic(client, opened.topic, settings.timeout_s)
        kafka = settings.kafka
        self._appender = KafkaAppender(
            client, self._current, kafka.compression, settings.entry_bytes, settings.timeout_s,
            clock_ms if mending else lambda: 0,
        )  # fmt: skip
        self._ahead: ReadAhead[int, UnreadEntries] = ReadAhead(kafka.read_ahead_bytes)
        self._counts = RecordCounts()
        self._ends_known: dict[int, int] = {}
        self._used_bytes, self._used_until_s = 0, 0.0
        self._lock, self._closed = threading.Lock(), False

    @property
    def identity(self) -> LogIdentity:
        """Which log this is; a consumer that knew another one must not go on."""
        return self._identity

    @property
    def generations(self) -> tuple[Generation, ...]:
        """See `EventLog.generations`."""
        return self._generations

    @property
    def all_partitions(self) -> int:
        """See `EventLog.all_partitions`."""
        return self._all

    @property
    def is_unfinished(self) -> bool:
        """See `EventLog.is_unfinished`."""
        known = self._run(read_known(self._client, self._meta, self._settings.timeout_s))
        return known is not None and known.unfinished

    def begin_generation(self, new: Generation) -> None:
        """See `EventLog.begin_generation`."""
        if not self._mending:
            raise ValueError("this log was not opened for mending")
        ends = {partition: seam.end for partition, seam in new.seams.items()}
        begun = begin(self._client, self._current.topic, self._meta, self._settings, self._identity, new, ends)
        known, self._current.topic = self._run(begun, sent=True)
        self._identity, self._generations = known.identity, known.generations
        self._all = len(self._current.topic.leaders)

    def finish_generation(self) -> None:
        """See `EventLog.finish_generation`."""
        topic, meta = self._current.topic, self._meta
        self._run(finish(self._client, topic, meta, self._settings, self._identity), sent=True)

    def append(self, entries: Sequence[Append]) -> list[int]:
        """See `EventLog.append`."""
        size = self._admit(entries)
        by_partition: dict[int, list[Append]] = {}
        for entry in entries:
            by_partition.setdefault(entry.partition, []).append(entry)
        known = {partition: self._ends_known.get(partition, 0) for partition in by_partition}
        messages = {partition: self._messages(partition, mine) for partition, mine in by_partition.items()}
        offsets = self._run(self._appender.append(messages), sent=True)
        self._check_appended(known, offsets)
        for partition, mine in by_partition.items():
            self._counts.appended(partition, offsets[partition][0] + 1, [entry.records for entry in mine])
        self._used_bytes += size
        numbers = {partition: iter(found) for partition, found in offsets.items()}
        return [next(numbers[entry.partition]) + 1 for entry in entries]

    def read(self, partition: int, after: int, limit_entries: int, limit_bytes: int, block_ms: int = 0) -> list[Entry]:
        """See `EventLog.read`."""
        return self.read_many({partition: after}, limit_entries, limit_bytes, block_ms).get(partition, [])

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        """See `EventLog.read_many`; one fetch from each leader of partitions of which nothing waits here."""
        self._check_call(after, block_ms)
        waiting = {partition: self._ahead.pop(partition, at) for partition, at in after.items()}
        missing = {partition: at for partition, at in after.items() if waiting[partition] is None}
        if missing:
            wait_ms = block_ms if len(missing) == len(after) else 0
            for partition, part in self._fetch(missing, limit_bytes, wait_ms).items():
                waiting[partition] = UnreadEntries(partition, part.records, after[partition])
        found: dict[int, list[Entry]] = {}
        for partition, unread in waiting.items():
            if unread is not None and (entries := unread.take(limit_entries, limit_bytes)):
                check_continuity(partition, after[partition], [entry.number for entry in entries])
                found[partition] = entries
                self._know({partition: entries[-1].number})
                if not unread.empty():
                    self._ahead.put(partition, entries[-1].number, unread)
        return found

    def wait_for(self, partition: int, number: int, timeout_ms: int) -> bool:
        """See `EventLog.wait_for`."""
        until = time.monotonic() + timeout_ms / 1000
        while (last := self.ends()[partition]) < number:
            left_ms = int((until - time.monotonic()) * 1000)
            if left_ms <= 0:
                return False
            self._fetch({partition: last}, 1, min(left_ms, self._settings.block_ms))
        return True

    def ends(self) -> dict[int, int]:
        """See `EventLog.ends`."""
        ends = self._offsets(NEXT)
        self._know(ends)
        return ends

    def begins(self) -> dict[int, int]:
        """See `EventLog.begins`."""
        return {partition: offset + 1 for partition, offset in self._offsets(FIRST).items()}

    def records(self) -> dict[int, int]:
        """See `EventLog.records`; what several append at the same moment may be counted as average entries."""
        ends = self.ends()
        behind = {partition: end - 1 for partition, end in ends.items() if end > self._counts.last(partition)}
        if behind:
            for partition, part in self._run(fetch(self._client, self._current, behind, 1, 0)).items():
                if part.code == 0:
                    self._counts.saw(partition, *total_of(partition, part.records))
        return {partition: self._counts.estimate(partition, end) for partition, end in ends.items() if end}

    def bytes_used(self) -> int:
        """What one copy of the log takes on the brokers' disks, compressed, bytes.

        After a trim it falls when the brokers remove whole files, up to `log.retention.check.interval.ms` later.
        """
        return self._run(self._client.disk_bytes(self._current.topic))

    def trim(self, partition: int, below: int) -> int:
        """See `EventLog.trim`."""
        self._check_partition(partition)
        begin, end = self.begins()[partition], self.ends()[partition]
        wanted = min(below, end + 1)
        if wanted <= begin:
            return 0
        first = self._run(self._client.delete_before(self._current.topic, partition, wanted - 1))
        self._ahead.drop(partition, wanted - 1)
        return first + 1 - begin

    def close(self) -> None:
        """See `EventLog.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._thread.run(self._client.close())
        self._thread.stop()

    def _admit(self, entries: Sequence[Append]) -> int:
        for entry in entries:
            self._check_partition(entry.partition, self._all if self._mending else self._identity.partitions)
            if len(entry.data) > self._settings.entry_bytes:
                raise Rejected(
                    f"a log entry of {len(entry.data)} bytes is over log.entry_bytes ({self._settings.entry_bytes});"
                    " send smaller batches"
                )
        if self._mending:  # what was there before has room, and nobody trims it meanwhile
            return 0
        now_s = time.monotonic()
        if now_s >= self._used_until_s:
            self._used_bytes, self._used_until_s = self.bytes_used(), now_s + _USED_FOR_S
        if self._used_bytes >= self._settings.max_bytes:
            raise Overloaded(
                f"{WHAT} is full ({self._used_bytes} of log.max_bytes = {self._settings.max_bytes}); it empties as the"
                " shards and the lake catch up, and the brokers remove what is trimmed",
                _USED_FOR_S,
            )
        return sum(len(entry.data) for entry in entries)

    def _messages(self, partition: int, entries: Sequence[Append]) -> list[Message]:
        at_ms = self._clock_ms()
        totals = self._counts.totals(partition, [entry.records for entry in entries])
        return [encoded(entry, at_ms, total) for entry, total in zip(entries, totals, strict=True)]

    def _check_appended(self, known: Mapping[int, int], offsets: Mapping[int, Sequence[int]]) -> None:
        """Nothing if entries came to lie in this log, behind all that is known of it.

        Raises:
            LogLostTail: the partition ended below what it had been seen to hold.
            TopicGone: another topic of the same name has taken them.
        """
        for partition, its in offsets.items():
            if its[0] < known[partition]:
                raise LogLostTail(partition, known[partition], its[0])
        if min(known.values(), default=1) == 0:  # a new topic's numbers would look the same as these
            self._run(self._current.refresh(), sent=True)
        self._know({partition: its[-1] + 1 for partition, its in offsets.items()})

    def _fetch(self, after: Mapping[int, int], limit_bytes: int, wait_ms: int) -> dict[int, Part]:
        """Parts that hold records; the errors of others are raised, those of the consumers' positions first."""
        found = self._run(fetch(self._client, self._current, after, limit_bytes, wait_ms))
        failed = {partition: part.code for partition, part in found.items() if part.code}
        if not failed:
            return found
        if any(code in MOVED for code in failed.values()):
            self._refresh(after)
        if any(code == OFFSET_OUT_OF_RANGE for code in failed.values()):
            begins, ends = self.begins(), self.ends()
            for partition in failed:
                check_range(partition, after[partition], begins[partition], ends[partition])
        return without_errors(found, LOG)

    def _refresh(self, after: Mapping[int, int]) -> None:
        try:
            self._run(self._current.refresh())
        except TopicGone as error:
            for partition, at in sorted(after.items()):
                if at:
                    raise LogLostTail(partition, at, 0) from error
            raise

    def _offsets(self, which: int) -> dict[int, int]:
        return self._run(self._client.offsets(self._current.topic, range(self._all), which))

    def _know(self, ends: Mapping[int, int]) -> None:
        with self._lock:
            for partition, end in ends.items():
                self._ends_known[partition] = max(end, self._ends_known.get(partition, 0))

    def _run(self, work: Coroutine[Any, Any, T], sent: bool = False) -> T:
        if self._closed:
            work.close()
            raise _closed()
        try:
            return self._thread.run_within(work, self._settings.timeout_s * _CALL_TIMES)
        except CancelledError as error:
            raise _closed() from error
        except CAUGHT as error:
            if self._closed:
                raise _closed() from error
            self._thread.soon(self._current.refresh_soon)
            raise translate(error, sent) from error

    def _check_call(self, after: Mapping[int, int], block_ms: int) -> None:
        for partition in after:
            self._check_partition(partition)
        if block_ms > self._settings.timeout_s * 500:
            raise ValueError(f"block_ms={block_ms} has to stay below half of log.timeout_s")

    def _check_partition(self, partition: int, count: int | None = None) -> None:
        if not 0 <= partition < (count or self._all):
            raise ValueError(f"partition {partition} of {count or self._all}")


def _closed() -> Unavailable:
    return Unavailable("this connection to the event log is closed; open another")
