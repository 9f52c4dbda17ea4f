"""Reads Kafka topics as sources: by topic id, from offsets that the caller keeps, what is committed only.

    look(name) ─► id, first and last offsets ─► read(id, offsets) ─► records, and the offset to go on at

No consumer group and no state on the brokers: whoever reads says where. Requests name the topic by its id, so that one
that was made again under the name is never taken for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from aiokafka.errors import InvalidTopicError, KafkaError

from cluster.config_kafka import KafkaConnection
from cluster.errors import NotFound, Unavailable
from cluster.stores.kafka_client import FIRST, NEXT, KafkaClient, connection_options
from cluster.stores.kafka_errors import CAUGHT, MOVED, OFFSET_OUT_OF_RANGE, Named, check_code, translate
from cluster.stores.kafka_fetch import Part, fetch, without_errors
from cluster.stores.kafka_loop import LoopThread
from cluster.stores.kafka_stream_records import OffsetLost, StreamGone, StreamRead, TopicLook, UnreadRecords
from cluster.stores.kafka_topic import CurrentTopic, TopicGone, known_topic
from cluster.stores.kafka_unread import ReadAhead

STREAMS = Named("the topics' Kafka cluster", "streams.kafka")

_REQUEST_SHARE, _REACH_SHARE, _CALL_TIMES = 0.75, 0.25, 1.5
"""Of `timeout_s`: one request, so that a connection that died unnoticed leaves time for another; seeing whether a
broker answers; one call."""
_POLL_S, _LOOK_FOR_S = 0.1, 1.0

T = TypeVar("T")


class KafkaStream:
    """Reads topics. Threads may share an instance; its calls block. A child process has to make its own.

    Connects at the first call, and again after the brokers were away.

    Args:
        timeout_s: of one call; a reading waits up to half of it, too.
        read_ahead_bytes: fetched records that are kept until their reader asks for them.
    """

    def __init__(self, settings: KafkaConnection, timeout_s: float, read_ahead_bytes: int) -> None:
        self._settings, self._timeout_s = settings, timeout_s
        self._thread = LoopThread("kafka-stream")
        self._client: KafkaClient | None = None
        self._connecting, self._doubted = asyncio.Lock(), False
        self._topics: dict[bytes, CurrentTopic] = {}
        self._ahead: ReadAhead[tuple[bytes, int], UnreadRecords] = ReadAhead(read_ahead_bytes)
        self._lock, self._closed = threading.Lock(), False

    def look(self, topic: str) -> TopicLook:
        """A topic as it stands now; never makes one.

        Raises:
            NotFound: there is no topic of that name, or none that the user may see.
            Rejected: the brokers forbid it, or are not fit.
            Unavailable: they do not answer, one partition's leader not either, or they refuse the password.
        """
        return self._run(self._look_soon(topic))

    def read(
        self, topic_id: str, offsets: Mapping[int, int], limit_records: int, limit_bytes: int, block_ms: int
    ) -> dict[int, StreamRead]:
        """What there is from some offsets on, waiting up to `block_ms` until there is something.

        Partitions of which there is nothing are left out, as are those whose broker does not answer while others do.

        Args:
            topic_id: as `look` gave it.
            offsets: of the first record wanted, by partition.
            limit_records, limit_bytes: of each partition; one record comes whatever its size.

        Raises:
            StreamGone: the topic was deleted, or made again; or the user may not see it any more, which brokers do not
                tell by an id: `look` does.
            OffsetLost: a partition lacks its offset.
            Corrupt: a batch is damaged.
            Rejected: the brokers forbid it, or a batch is compressed in a way that is not installed.
            Unavailable: no broker answers.
        """
        if block_ms > self._timeout_s * 500:
            raise ValueError(f"block_ms={block_ms} has to stay below half of timeout_s={self._timeout_s}")
        topic = bytes.fromhex(topic_id)
        waiting = {partition: self._ahead.pop((topic, partition), at) for partition, at in offsets.items()}
        missing = {partition: at for partition, at in offsets.items() if waiting[partition] is None}
        if missing:
            wait_ms = block_ms if len(missing) == len(offsets) else 0
            for partition, part in self._run(self._fetch(topic, missing, limit_bytes, wait_ms)).items():
                waiting[partition] = UnreadRecords(partition, part, offsets[partition])
        found: dict[int, StreamRead] = {}
        for partition, unread in waiting.items():
            if unread is not None and (read := unread.taken(limit_records, limit_bytes)).next > offsets[partition]:
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

    async def _look_soon(self, name: str) -> TopicLook:
        """`_look`, again for a moment while leaders change: a new topic gets its first ones."""
        until = time.monotonic() + min(_LOOK_FOR_S, self._timeout_s / 2)
        client = await self._connected()
        while True:
            try:
                return await self._look(client, name)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > until:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _look(self, client: KafkaClient, name: str) -> TopicLook:
        try:
            topic = await client.topic(name=name)
        except InvalidTopicError as error:
            raise NotFound(f"{name!r} cannot be the name of a topic") from error
        if topic is None:
            raise NotFound(f"{STREAMS.what} has no topic {name!r}, or {STREAMS.settings}.user may not see it")
        first = await client.offsets(topic, topic.leaders, FIRST)
        end = await client.offsets(topic, topic.leaders, NEXT, committed=True)
        again = await client.topic(name=name)
        if again is None or again.id != topic.id:  # offsets are asked for by name: they may be another topic's
            raise Unavailable(f"topic {name!r} is being deleted or made again; try again shortly")
        return TopicLook(topic.name, topic.id.hex(), first, end)

    async def _fetch(
        self, topic_id: bytes, offsets: Mapping[int, int], limit_bytes: int, wait_ms: int
    ) -> dict[int, Part]:
        """Parts that hold records; the errors of others are raised, those of the reader's offsets first."""
        try:
            current = await self._current(topic_id)
            found = await fetch(current.client, current, offsets, limit_bytes, wait_ms, committed=True)
            failed = {partition: part.code for partition, part in found.items() if part.code}
            if any(code in MOVED for code in failed.values()):
                await current.refresh()
        except TopicGone as error:
            self._topics.pop(topic_id, None)
            raise StreamGone(topic_id.hex()) from error
        await self._check_lost(current, {p: offsets[p] for p, code in failed.items() if code == OFFSET_OUT_OF_RANGE})
        if len(failed) == len(found):
            for code in set(failed.values()) - MOVED - {OFFSET_OUT_OF_RANGE}:
                check_code(code)
        return without_errors(found, STREAMS)

    async def _check_lost(self, current: CurrentTopic, asked: Mapping[int, int]) -> None:
        """Nothing, unless one of the offsets is outside of its partition: then `OffsetLost`."""
        if not asked:
            return
        first = await current.client.offsets(current.topic, asked, FIRST)
        end = await current.client.offsets(current.topic, asked, NEXT)
        for partition, offset in asked.items():
            if not first[partition] <= offset <= end[partition]:
                raise OffsetLost(partition, offset, first[partition], end[partition])

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
            return self._thread.run(asyncio.wait_for(work, self._timeout_s * _CALL_TIMES))
        except CancelledError as error:
            raise _closed() from error
        except CAUGHT as error:
            self._doubted = True
            raise translate(error, named=STREAMS) from error


def _closed() -> Unavailable:
    return Unavailable("this reader of topics is closed; make another")
