"""Topics of tests on a real broker: made, filled and changed as other programs do it, by aiokafka's own clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.new_topic import NewTopic

from cluster.config_kafka import KafkaConnection
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_records import StreamRecord
from services.spec import Running
from tests.kafka_broker import KafkaBroker

MANY, MB = 100_000, 1 << 20


class Sent(NamedTuple):
    """A record to produce."""

    value: bytes | None
    partition: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    at_ms: int | None = None


class Topics:
    """What other programs do with topics of a broker."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker

    def administer(self, do: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
        """Does something to the cluster."""

        async def run() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
            await admin.start()
            try:
                await do(admin)
            finally:
                await admin.close()

        asyncio.run(run())

    def make(self, name: str, partitions: int = 1, replicas: int = 1, **config: str) -> None:
        """A new topic; dots in settings are written as underscores."""
        settings = {setting.replace("_", "."): value for setting, value in config.items()}
        self.administer(
            lambda admin: admin.create_topics([NewTopic(name, partitions, replicas, topic_configs=settings)])
        )

    def delete(self, name: str) -> None:
        """Deletes it, and waits until its first partition's files are away."""
        self.administer(lambda admin: admin.delete_topics([name]))
        until = time.monotonic() + 10
        while (self.broker.folder / "data" / f"{name}-0").exists() and time.monotonic() < until:
            time.sleep(0.05)

    def widen(self, name: str, partitions: int) -> None:
        """Adds partitions, up to that number."""
        self.administer(lambda admin: admin.create_partitions({name: NewPartitions(partitions)}))

    def trim(self, name: str, partition: int, below: int) -> None:
        """Removes a partition's first records, as retention does."""
        removed = {TopicPartition(name, partition): RecordsToDelete(below)}
        self.administer(lambda admin: admin.delete_records(removed))

    def produce(self, name: str, records: Iterable[Sent], **options: Any) -> None:
        """Appends records, as many in a batch as fit."""

        async def run() -> None:
            where = self.broker.bootstrap  # acknowledged by all replicas: before that a reader may not see it
            async with AIOKafkaProducer(bootstrap_servers=where, acks="all", linger_ms=20, **options) as producer:
                await send(producer, name, records)

        asyncio.run(run())


class _Elsewhere(NamedTuple):
    """A broker whose files are its own affair."""

    bootstrap: str
    folder: Path = Path("/dev/null")


class Topic:
    """One topic of a broker of `services/`, made at once; values are JSON where they are not bytes or None."""

    def __init__(self, server: Running, name: str, partitions: int = 1) -> None:
        self.bootstrap, self.name, self._topics = server.address, name, Topics(_Elsewhere(server.address))  # type: ignore[arg-type]
        self.make(partitions)

    def make(self, partitions: int) -> None:
        """Makes it, for the first time or again."""
        self._topics.make(self.name, partitions)

    def delete(self) -> None:
        """Deletes it."""
        self._topics.delete(self.name)

    def grow(self, partitions: int) -> None:
        """Adds partitions, up to that number."""
        self._topics.widen(self.name, partitions)

    def trim(self, partition: int, below: int) -> None:
        """Removes a partition's first records."""
        self._topics.trim(self.name, partition, below)

    def send(self, values: Iterable[Any], partition: int = 0) -> None:
        """Appends values, in order."""
        self._topics.produce(self.name, [Sent(_encoded(value), partition, b"k") for value in values])


def _encoded(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


async def send(producer: AIOKafkaProducer, name: str, records: Iterable[Sent]) -> None:
    """Appends records and waits until they are there."""
    under_way = [
        await producer.send(name, value, key=key, partition=partition, headers=list(headers), timestamp_ms=at_ms)
        for value, partition, key, headers, at_ms in records
    ]
    await asyncio.gather(*under_way)


def reader(bootstrap: str, timeout_s: float = 5.0, **connection: Any) -> KafkaStream:
    """A reader of topics."""
    return KafkaStream(KafkaConnection(bootstrap=bootstrap, **connection), timeout_s, 4 * MB)


def values(records: Iterable[StreamRecord]) -> list[bytes | None]:
    """Of records."""
    return [record.value for record in records]


def numbered(count: int, partition: int = 0, first: int = 0, size: int = 0) -> list[Sent]:
    """Records whose values are counted up."""
    return [Sent(b"%d" % (first + n) + bytes(size), partition) for n in range(count)]


def read_out(
    stream: KafkaStream, topic_id: str, offsets: Mapping[int, int], limit_records: int = MANY, limit_bytes: int = MB
) -> dict[int, list[StreamRecord]]:
    """All that can be read from some offsets on, until no partition goes on any more."""
    at = dict(offsets)
    found: dict[int, list[StreamRecord]] = {partition: [] for partition in offsets}
    while came := stream.read(topic_id, at, limit_records, limit_bytes, 0):
        for partition, (records, following, *_) in came.items():
            assert following > at[partition]
            assert all(at[partition] <= record.offset < following for record in records)
            found[partition] += records
            at[partition] = following
    return found
