"""A topic of a test's own on a real broker: made, filled, grown, trimmed, deleted and made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

T = TypeVar("T")


class Topic:
    """Each call connects anew, and waits until the broker has done it."""

    def __init__(self, bootstrap: str, name: str, partitions: int = 1) -> None:
        self.bootstrap, self.name = bootstrap, name
        self.make(partitions)

    def make(self, partitions: int) -> None:
        """Makes the topic."""
        self._ask(lambda admin: admin.create_topics([NewTopic(self.name, partitions, 1)]))

    def delete(self) -> None:
        """Deletes it."""
        self._ask(lambda admin: admin.delete_topics([self.name]))

    def grow(self, partitions: int) -> None:
        """Adds partitions until there are so many."""
        self._ask(lambda admin: admin.create_partitions({self.name: NewPartitions(partitions)}))

    def trim(self, partition: int, before: int) -> None:
        """Removes the records before an offset."""
        what = {TopicPartition(self.name, partition): RecordsToDelete(before_offset=before)}
        self._ask(lambda admin: admin.delete_records(what))

    def send(self, values: Iterable[Any], partition: int = 0) -> None:
        """Appends values, in order: bytes as they are, None as a tombstone, others as JSON."""
        encoded = [
            value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in values
        ]
        asyncio.run(self._send({partition: encoded}))

    async def _send(self, values: Mapping[int, list[bytes | None]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            for partition, some in values.items():
                sent = [await producer.send(self.name, value=value, key=b"k", partition=partition) for value in some]
                await asyncio.gather(*sent)
        finally:
            await producer.stop()

    def _ask(self, what: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        async def asked() -> T:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                return await what(admin)
            finally:
                await admin.close()

        return asyncio.run(asked())
