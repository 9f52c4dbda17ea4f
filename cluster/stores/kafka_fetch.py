"""Reading a topic by position: fetches that carry their offsets, and what they brought and nobody has taken yet.

    fetch(…) ─► records of each partition, compressed as they came ─► Unread.take(limits) ─► entries
                                                      what is left ─► ReadAhead, until a reader comes to that position

A fetch brings whole batches, mostly more than a reader takes at once. The rest waits under the position that its reader
will ask for next, so a sequential reader fetches nothing twice; readers at other positions do not disturb it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka.record.memory_records import MemoryRecords

from cluster.errors import Corrupt
from cluster.stores.kafka_client import KafkaClient
from cluster.stores.kafka_entry import decoded
from cluster.stores.kafka_errors import CAUGHT, check_code
from cluster.stores.kafka_topic import CurrentTopic, Topic, by_leader
from cluster.stores.kafka_wire import FetchById
from cluster.stores.log import Entry


class Part(NamedTuple):
    """What a fetch brought of one partition.

    Args:
        code: error code; 0 for none.
        end: offset that the next entry will have, as the leader knows it.
        records: batches as they are stored; the last may be cut off.
    """

    code: int
    end: int
    records: bytes


async def fetch(
    client: KafkaClient, current: CurrentTopic, offsets: Mapping[int, int], partition_bytes: int, wait_ms: int
) -> dict[int, Part]:
    """What there is from some offsets on, waiting up to `wait_ms` until there is something.

    A broker that does not answer hides its own partitions only, unless there is nothing else: then its error is raised.

    Args:
        offsets: of the first entry wanted, by partition.
        partition_bytes: of each partition; more where its first batch is larger.
    """
    topic = current.topic
    nodes = by_leader(topic, offsets)
    wants = [(node, {partition: offsets[partition] for partition in mine}) for node, mine in nodes.items()]
    at_once = wait_ms == 0 or len(wants) > 1
    found, failed = await _answers(client, topic, wants, partition_bytes, 0 if at_once else wait_ms)
    if at_once and wait_ms and not found and not failed:
        found, failed = await _answers(client, topic, wants, partition_bytes, wait_ms)
    if failed:
        current.refresh_soon()
        if not found:
            raise failed[0]
    return found


async def _answers(
    client: KafkaClient, topic: Topic, wants: list[tuple[int, dict[int, int]]], partition_bytes: int, wait_ms: int
) -> tuple[dict[int, Part], list[BaseException]]:
    """Of the brokers that have answered when the first of them has something; the others' answers are let go."""
    pending = {
        asyncio.ensure_future(_from_one(client, topic, node, mine, partition_bytes, wait_ms)) for node, mine in wants
    }
    found: dict[int, Part] = {}
    failed: list[BaseException] = []
    while pending and not (found and wait_ms):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                found.update(task.result())
            elif isinstance(error, CAUGHT):
                failed.append(error)
            else:
                raise error
    for task in pending:
        task.add_done_callback(_let_go)
    return found, failed


def _let_go(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _from_one(
    client: KafkaClient, topic: Topic, node: int, offsets: dict[int, int], partition_bytes: int, wait_ms: int
) -> dict[int, Part]:
    found: dict[int, Part] = {}
    async with client.lane() as lane:
        asked = [(offsets, wait_ms)]
        while asked:
            some, wait = asked.pop()
            answer = await client.send(node, FetchById(topic.id, some, partition_bytes, wait), lane)
            check_code(answer.error_code)
            for _, rows, _ in answer.topics:
                for partition, code, end, _, _, _, _, records, _ in rows:
                    if code or records:
                        found[partition] = Part(code, end, records or b"")
                    elif end > some[partition] and len(some) > 1:  # its first batch is too large to come in company
                        asked.append(({partition: some[partition]}, 0))
    return found


class Unread:
    """What a fetch brought of one partition and nobody has taken yet, decoded batch by batch as it is taken.

    Args:
        after: entries up to this number are left out: a batch comes whole even if only its end was asked for.
    """

    def __init__(self, partition: int, records: bytes, after: int) -> None:
        self._partition, self._after = partition, after
        self._packed_bytes = len(records)
        self._batches = MemoryRecords(records)
        self._held: deque[Entry] = deque()

    @property
    def size_bytes(self) -> int:
        """Memory that it takes: all that was fetched, and the entries of the batch that is being taken."""
        return self._packed_bytes + sum(len(entry.data) for entry in self._held)

    def empty(self) -> bool:
        """Whether all of it is taken.

        Raises:
            Corrupt: a batch or an entry is damaged, or not one of ours.
        """
        while not self._held and self._batches.has_next():
            self._held.extend(self._decoded(self._batches.next_batch()))
        return not self._held

    def take(self, limit_entries: int, limit_bytes: int) -> list[Entry]:
        """The next entries; at least one if there is one, otherwise up to the limits. Raises as `empty` does."""
        taken: list[Entry] = []
        total = 0
        while len(taken) < max(1, limit_entries) and not self.empty():
            total += len(self._held[0].data)
            if taken and total > limit_bytes:
                break
            taken.append(self._held.popleft())
        return taken

    def _decoded(self, batch: Any) -> list[Entry]:
        if not batch.validate_crc():
            raise Corrupt(
                f"log partition {self._partition}: entry {batch.base_offset + 1} is damaged; restore its files"
            )
        if batch.is_control_batch:
            return []  # it takes a number, so what follows it is found to be no continuation
        return [decoded(self._partition, record) for record in batch if record.offset >= self._after]


class ReadAhead:
    """What is left of fetches, by partition and position, within a bound. Threads may share an instance.

    Args:
        most_bytes: kept in all; over that, what was used longest ago is dropped.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[int, int], tuple[Unread, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def pop(self, partition: int, after: int) -> Unread | None:
        """What waits for a reader at that position; it is the caller's from now on."""
        with self._lock:
            return self._forget((partition, after))

    def put(self, partition: int, after: int, unread: Unread) -> None:
        """Keeps it for the reader that will come to that position."""
        with self._lock:
            self._forget((partition, after))
            size = unread.size_bytes
            self._kept[partition, after] = unread, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._forget(next(iter(self._kept)))

    def drop(self, partition: int, below: int) -> None:
        """Forgets what waits at positions under `below`."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == partition and key[1] < below]:
                self._forget(key)

    def _forget(self, key: tuple[int, int]) -> Unread | None:
        unread, size = self._kept.pop(key, (None, 0))
        self._bytes -= size
        return unread
