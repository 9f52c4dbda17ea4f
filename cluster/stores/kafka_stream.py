"""Reads Kafka topics as sources: by topic id, from offsets that the caller keeps, what is committed only.

    look(name) ─► id, first and last offsets ─► read(id, places) ─► records, and the offset to go on at

No consumer group and no state on the brokers: whoever reads says where. Requests name the topic by its id, so that one
that was made again under the name is never taken for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from types import MappingProxyType
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from cluster.config_kafka import KafkaConnection
from cluster.errors import Corrupt, IntelGraphError, Unavailable
from cluster.stores.kafka_client import FIRST, NEXT, KafkaClient, connection_options
from cluster.stores.kafka_errors import CAUGHT, DAMAGED, MOVED, OFFSET_OUT_OF_RANGE, Named, check_code, translate
from cluster.stores.kafka_fetch import Part, fetch, without_errors
from cluster.stores.kafka_loop import LoopThread
from cluster.stores.kafka_stream_look import leaders_offsets, look, other_from
from cluster.stores.kafka_stream_records import OffsetLost, Reached, StreamGone, StreamRead, TopicLook
from cluster.stores.kafka_stream_unread import UnreadRecords
from cluster.stores.kafka_topic import CurrentTopic, TopicGone, known_topic
from cluster.stores.kafka_unread import ReadAhead

STREAMS = Named("the topics' Kafka cluster", "streams.kafka")

_REQUEST_SHARE, _REACH_SHARE, _LEADER_SHARE, _CALL_TIMES = 0.75, 0.25, 0.25, 1.5
"""Of `timeout_s`: one request, so that a connection that died unnoticed leaves time for another; seeing whether a
broker answers; what one leader says of its partitions; one call."""
_POLL_S, _LOOK_FOR_S = 0.1, 1.0

T = TypeVar("T")


class KafkaStream:
    """Reads topics. Threads may share an instance; its calls block. A child process has to make its own.

    Connects at the first call, and again after the brokers were away.

    Args:
        timeout_s: of one call; a reading waits up to half of it, too.
        read_ahead_bytes: fetched records that are kept until their reader asks for them.
        batch_bytes: of one batch of a topic, once it is unpacked.
    """

    def __init__(
        self, settings: KafkaConnection, timeout_s: float, read_ahead_bytes: int, batch_bytes: int = 64 << 20
    ) -> None:
        self._settings, self._timeout_s, self._batch_bytes = settings, timeout_s, batch_bytes
        self._thread = LoopThread("kafka-stream")
        self._client: KafkaClient | None = None
        self._connecting, self._doubted = asyncio.Lock(), False
        self._topics: dict[bytes, CurrentTopic] = {}
        self._ahead: ReadAhead[tuple[bytes, int], UnreadRecords] = ReadAhead(read_ahead_bytes)
        self._lock, self._closed = threading.Lock(), False

    def look(self, topic: str, reached: Mapping[int, Reached] = MappingProxyType({})) -> TopicLook:
        """A topic as it stands now; never makes one. A partition whose leader says nothing hides no other.

        Args:
            reached: of partitions that are read, how far: whether what was read is still there.

        Raises:
            NotFound: there is no topic of that name, or none that the user may see.
            Rejected: the brokers forbid it, or are not fit.
            Unavailable: they do not answer, no partition's leader does, or they refuse the password.
        """
        return self._run(self._look_soon(topic, reached))

    def read(
        self,
        topic_id: str,
        offsets: Mapping[int, int],
        limit_records: int,
        limit_bytes: int,
        block_ms: int,
        epochs: Mapping[int, int] = MappingProxyType({}),
    ) -> dict[int, StreamRead]:
        """What there is from some offsets on, waiting up to `block_ms` until there is something.

        Partitions of which there is nothing are left out, as are those whose broker does not answer while others do.
        What stands against one partition is told with it (`StreamRead.failed`), and hides no other:

            OffsetLost: it lacks its offset, or the record before it is another one now.
            Corrupt: a batch is damaged, or its brokers say that it is.
            Rejected: a batch is packed in a way that is not known here, or takes more than `batch_bytes`.

        Args:
            topic_id: as `look` gave it.
            offsets: of the first record wanted, by partition.
            limit_records, limit_bytes: of each partition; one record comes whatever its size.
            epochs: of the leader of the record before each offset, by partition, as `StreamRead` gave it; where it is
                known, other records in that record's place are told from it.

        Raises:
            StreamGone: the topic was deleted, or made again; or the user may not see it any more, which brokers do not
                tell by an id: `look` does.
            Rejected: the brokers forbid it.
            Unavailable: no broker answers.
        """
        if block_ms > self._timeout_s * 500:
            raise ValueError(f"block_ms={block_ms} has to stay below half of timeout_s={self._timeout_s}")
        topic = bytes.fromhex(topic_id)
        waiting = {partition: self._ahead.pop((topic, partition), offset) for partition, offset in offsets.items()}
        missing = {p: Reached(offset, epochs.get(p, -1)) for p, offset in offsets.items() if waiting[p] is None}
        found: dict[int, StreamRead] = {}
        if missing:
            wait_ms = block_ms if len(missing) == len(offsets) else 0
            parts, against = self._run(self._fetch(topic, missing, limit_bytes, wait_ms))
            found = {
                partition: StreamRead([], offsets[partition], -1, failed=why) for partition, why in against.items()
            }
            for partition, part in parts.items():
                waiting[partition] = UnreadRecords(partition, part, offsets[partition], self._batch_bytes)
        for partition, unread in waiting.items():
            if unread is None:
                continue
            read = unread.taken(limit_records, limit_bytes)
            if read.next > offsets[partition] or read.failed is not None:
                found[partition] = read
            if not unread.empty():
                self._ahead.put((topic, partition), read.next, unread)
        return found

    def close(self) -> None:
        """Ends the connections and whatever waits. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._thread.run(self._disconnect())
        self._thread.stop()

    async def _look_soon(self, name: str, reached: Mapping[int, Reached]) -> TopicLook:
        """`look`, again for a moment while leaders change: a new topic gets its first ones."""
        until = time.monotonic() + min(_LOOK_FOR_S, self._timeout_s / 2)
        client = await self._connected()
        while True:
            try:
                found = await look(client, name, reached, self._timeout_s * _LEADER_SHARE, STREAMS)
                if not found.unseen or time.monotonic() > until:
                    return found
            except KafkaError as error:
                if not error.retriable or time.monotonic() > until:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _fetch(
        self, topic_id: bytes, at: Mapping[int, Reached], limit_bytes: int, wait_ms: int
    ) -> tuple[dict[int, Part], dict[int, IntelGraphError]]:
        """Parts that hold records, and what stands against others."""
        asked = {partition: place.offset for partition, place in at.items()}
        epochs = {partition: place.leader_epoch for partition, place in at.items()}
        try:
            current = await self._current(topic_id)
            found = await fetch(current.client, current, asked, limit_bytes, wait_ms, True, epochs)
            codes = {partition: part.code for partition, part in found.items() if part.code}
            if any(code in MOVED for code in codes.values()):
                await current.refresh()
        except TopicGone as error:
            self._topics.pop(topic_id, None)
            raise StreamGone(topic_id.hex()) from error
        against: dict[int, IntelGraphError] = {
            partition: _damaged(partition, asked[partition]) for partition, code in codes.items() if code in DAMAGED
        }
        lost = {partition: at[partition] for partition, code in codes.items() if code == OFFSET_OUT_OF_RANGE}
        against |= await self._lost(current, lost) | _replaced(at, found)
        if len(codes) == len(found):
            for code in set(codes.values()) - MOVED - DAMAGED - {OFFSET_OUT_OF_RANGE}:
                check_code(code)
        rest = {partition: part for partition, part in found.items() if partition not in against}
        return without_errors(rest, STREAMS) if not against else _good(rest), against

    async def _lost(self, current: CurrentTopic, at: Mapping[int, Reached]) -> dict[int, IntelGraphError]:
        """Of partitions whose leaders have refused the offset: why; left out where they would not again."""
        if not at:
            return {}
        timeout_s = self._timeout_s * _LEADER_SHARE
        first = await leaders_offsets(current.client, current.topic, at, FIRST, timeout_s)
        end = await leaders_offsets(current.client, current.topic, at, NEXT, timeout_s)
        found: dict[int, IntelGraphError] = {}
        for p in at.keys() & first.keys() & end.keys():
            (offset, leader_epoch), within = at[p], first[p] <= at[p].offset <= end[p]
            if not within or leader_epoch >= 0:  # it knows no such epoch: what was read is not there any more
                found[p] = OffsetLost(p, offset, first[p], end[p], first[p] if within else None)
        return found

    async def _current(self, topic_id: bytes) -> CurrentTopic:
        client = await self._connected()
        if topic_id not in self._topics:
            topic = await known_topic(client, topic_id, self._timeout_s)
            self._topics.setdefault(topic_id, CurrentTopic(client, topic, self._timeout_s))
        return self._topics[topic_id]

    async def _connected(self) -> KafkaClient:
        """The client; a new one where none of the brokers that it knows answers: they may have moved."""
        async with self._connecting:
            if self._client is not None and self._doubted and not await self._reaches(self._client):
                await self._disconnect()
            self._doubted = False
            if self._client is None:
                options = connection_options(self._settings, self._timeout_s * _REQUEST_SHARE, STREAMS)
                client = KafkaClient(self._settings.bootstrap, options)
                try:
                    await client.start()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _reaches(self, client: KafkaClient) -> bool:
        try:
            return await asyncio.wait_for(client.refresh_brokers(), self._timeout_s * _REACH_SHARE)
        except CAUGHT:
            return False

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._topics.clear()
        if client is not None:
            await client.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise _closed()
        try:
            return self._thread.run_within(work, self._timeout_s * _CALL_TIMES)
        except CancelledError as error:
            raise _closed() from error
        except CAUGHT as error:
            self._doubted = True
            raise translate(error, named=STREAMS) from error


def _closed() -> Unavailable:
    return Unavailable("this reader of topics is closed; make another")


def _damaged(partition: int, offset: int) -> Corrupt:
    return Corrupt(
        f"partition {partition}: its broker cannot read offset {offset}; see that broker's log, and have its files"
        " restored"
    )


def _replaced(at: Mapping[int, Reached], found: Mapping[int, Part]) -> dict[int, IntelGraphError]:
    """Of partitions that have other records now than were read."""
    return {
        p: OffsetLost(p, at[p].offset, 0, part.end, other_from(at[p], part.diverged, 0))
        for p, part in found.items()
        if part.diverged is not None
    }


def _good(found: Mapping[int, Part]) -> dict[int, Part]:
    return {partition: part for partition, part in found.items() if not part.code}
