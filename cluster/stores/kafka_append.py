"""Appending to a topic so that an entry whose answer was lost is not there twice: Kafka's idempotent producer.

Each partition has a producer id of its own and one batch under way. A batch whose answer is lost is sent again as it
is, with the same sequence number, until the deadline: the broker answers a repeated one with the first one's offsets.
Whether a batch may have reached the broker is known at each step, so an append that certainly changed nothing says so.
aiokafka's producer can do neither: it repeats a batch for ever, and the batch may come to lie in the log minutes after
its appender was told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka.errors import BrokerResponseError, NodeNotReadyError
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from cluster.errors import Corrupt, IntelGraphError, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.kafka_client import KafkaClient
from cluster.stores.kafka_entry import Message
from cluster.stores.kafka_errors import (
    CAUGHT,
    NEW_PRODUCER,
    NOT_APPENDED,
    NOT_NOW,
    TOO_FEW_REPLICAS,
    TOO_LARGE,
    WHAT,
    check_code,
    translate,
)
from cluster.stores.kafka_topic import CurrentTopic
from cluster.stores.kafka_wire import Produce

CODECS = {"none": 0, "lz4": 3, "zstd": 4}

_MAGIC, _NO_TRANSACTION_MS, _SEQUENCE_MAX = 2, (1 << 31) - 1, (1 << 31) - 1
_OVERHEAD_BYTES = 128
"""Of a message in a batch: its headers and lengths, at most."""
_AGAIN_S = 0.1
_TRIES_AWAY = 2
"""A leader that cannot be reached is looked up again so often; then the appender is told."""


@dataclass
class Producer:
    """Who appends to a partition.

    Args:
        id: None until the brokers have given one.
        sequence: number of its next message, which the brokers compare.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    id: int | None = None
    epoch: int = 0
    sequence: int = 0

    def forget(self) -> None:
        """The next batch begins anew: where the last one stands is not known."""
        self.id, self.sequence = None, 0


class Failed(NamedTuple):
    """What came of sending a batch once.

    Args:
        maybe: the batch may have been appended all the same.
        final: the same again would get the same answer.
        away: the broker was not reached.
    """

    error: IntelGraphError
    maybe: bool = False
    final: bool = False
    away: bool = False


class KafkaAppender:
    """Appends to one topic; used on the client's event loop, by several tasks at once.

    Args:
        batch_bytes: of values in one batch; a larger value goes alone.
        timeout_s: of one call, all repetitions included.
        clock_ms: what batches are stamped with; by this, who fills a new generation is told from all others.
    """

    def __init__(
        self, client: KafkaClient, current: CurrentTopic, codec: str, batch_bytes: int, timeout_s: float,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._client, self._current, self._codec = client, current, CODECS[codec]
        self._batch_bytes, self._timeout_s = batch_bytes, timeout_s
        self._clock_ms = clock_ms
        self._producers: dict[int, Producer] = {}

    async def append(self, messages: Mapping[int, Sequence[Message]]) -> dict[int, list[int]]:
        """Appends by partition and returns the offsets, once all are on as many replicas as the topic demands.

        Raises:
            Unavailable: nothing of it was appended.
            OutcomeUnknown: some of it may be.
            Rejected: the broker finds a message too large, or forbids it.
            TopicGone: the topic was deleted.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        work = [self._partition(partition, its, deadline) for partition, its in messages.items()]
        answers = await asyncio.gather(*work, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        done = [answer for answer in answers if isinstance(answer, list)]
        if failed:
            raise worst(failed, some_appended=bool(done))
        return dict(zip(messages, done, strict=True))

    async def _partition(self, partition: int, messages: Sequence[Message], deadline: float) -> list[int]:
        producer = self._producers.setdefault(partition, Producer())
        try:
            async with asyncio.timeout_at(deadline):
                await producer.lock.acquire()
        except TimeoutError as error:
            raise Unavailable(f"{WHAT}: earlier appends to partition {partition} still wait; try again") from error
        offsets: list[int] = []
        try:
            for batch in batches(messages, self._batch_bytes):
                first = await self._batch(partition, producer, batch, deadline)
                offsets.extend(range(first, first + len(batch)))
            return offsets
        except BaseException as error:
            producer.forget()  # another batch under a number that was used would be taken for that one, and dropped
            if offsets and isinstance(error, Unavailable):
                raise OutcomeUnknown(str(error), error.retry_after_s) from error
            raise
        finally:
            producer.lock.release()

    async def _batch(self, partition: int, producer: Producer, batch: Sequence[Message], deadline: float) -> int:
        """The batch's first offset; it is sent again until it is acknowledged or the deadline passes."""
        now_s = asyncio.get_running_loop().time
        maybe, attempt = False, 1
        if producer.sequence + len(batch) > _SEQUENCE_MAX:
            producer.forget()
        while not isinstance(result := await self._once(partition, producer, batch, deadline), int):
            maybe = maybe or result.maybe
            useless = result.final or (result.away and not maybe and attempt >= _TRIES_AWAY)
            if useless or (maybe and producer.id is None) or now_s() + _AGAIN_S >= deadline:
                if not maybe:
                    raise result.error
                raise OutcomeUnknown(f"{result.error}. It may have been appended: append the same again", 1.0)
            attempt += 1
            await asyncio.sleep(_AGAIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._current.refresh()
        producer.sequence += len(batch)
        return result

    async def _once(
        self, partition: int, producer: Producer, batch: Sequence[Message], deadline: float
    ) -> int | Failed:
        sent = False
        try:
            async with asyncio.timeout_at(deadline), self._client.lane() as lane:
                if producer.id is None:
                    await self._begin(producer)
                data = _built(producer, batch, self._codec, self._clock_ms())
                leader = self._current.topic.leaders.get(partition, -1)
                if not await self._client.ready(leader, lane):
                    raise NodeNotReadyError(f"broker {leader}")
                sent = True
                topic, wait_ms = self._current.topic, self._client.timeout_ms
                answer = await self._client.send(leader, Produce(topic.name, topic.id, partition, data, wait_ms), lane)
        except CAUGHT as error:
            sent = sent and not isinstance(error, NodeNotReadyError)
            return Failed(translate(error), maybe=sent, away=not sent and not isinstance(error, BrokerResponseError))
        _, rows, *_ = answer.topics[0]
        _, code, offset, *_ = rows[0]
        return int(offset) if code == 0 and offset >= 0 else refusal(code, producer)

    async def _begin(self, producer: Producer) -> None:
        answer = await self._client.ask(InitProducerIdRequest(None, _NO_TRANSACTION_MS))
        check_code(answer.error_code)
        producer.id, producer.epoch, producer.sequence = answer.producer_id, answer.producer_epoch, 0


def refusal(code: int, producer: Producer) -> Failed:
    """What a broker's error code means for a batch."""
    if code in TOO_LARGE:
        return Failed(Rejected(f"{WHAT} takes no batch that large: raise max.message.bytes of its topic"), final=True)
    if code in TOO_FEW_REPLICAS:
        few = Unavailable(
            f"{WHAT} has fewer than log.kafka.min_in_sync replicas in sync: see that its brokers run", 2.0
        )
        return Failed(few, maybe=code not in NOT_APPENDED)
    if code in NEW_PRODUCER:
        producer.forget()
        return Failed(Unavailable(f"{WHAT} has forgotten who appends (error code {code}); try again"))
    if code == NOT_NOW:
        return Failed(Unavailable(f"a new generation of {WHAT} is being opened: `intelgraph up` does that", 1.0))
    if code in NOT_APPENDED:
        return Failed(Unavailable(f"{WHAT}: a partition is without a leader (error code {code}); try again shortly"))
    try:
        check_code(code)
    except CAUGHT as error:
        meant = translate(error)
        return Failed(meant, maybe=not isinstance(meant, Rejected), final=isinstance(meant, Rejected))
    return Failed(Unavailable(f"{WHAT} does not say where an entry lies"), maybe=True, final=True)


def worst(failed: Sequence[BaseException], some_appended: bool) -> BaseException:
    """The one error of several: what is no error of ours, then what cannot be repeated, then what may have happened."""
    for kind in (Exception, Corrupt, OutcomeUnknown, Rejected):
        for error in failed:
            if isinstance(error, kind) and (kind is not Exception or not isinstance(error, IntelGraphError)):
                return error
    if some_appended:
        return OutcomeUnknown(f"{failed[0]}. Some of it was appended: append the same again", 1.0)
    return failed[0]


def batches(messages: Sequence[Message], most_bytes: int) -> Iterator[list[Message]]:
    """The messages in order, as many in one batch as fit; one that is too large by itself goes alone."""
    batch: list[Message] = []
    total = 0
    for message in messages:
        size = len(message.value) + _OVERHEAD_BYTES
        if batch and total + size > most_bytes:
            yield batch
            batch, total = [], 0
        batch.append(message)
        total += size
    if batch:
        yield batch


def _built(producer: Producer, batch: Sequence[Message], codec: int, at_ms: int) -> bytes:
    room = sum(len(message.value) + _OVERHEAD_BYTES for message in batch) + _OVERHEAD_BYTES
    builder = DefaultRecordBatchBuilder(_MAGIC, codec, 0, producer.id, producer.epoch, producer.sequence, room)
    for offset, (value, headers) in enumerate(batch):
        builder.append(offset, timestamp=at_ms, key=None, value=value, headers=headers)
    return bytes(builder.build())
