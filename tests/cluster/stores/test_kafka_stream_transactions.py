"""Reading topics that are written in transactions: what is committed comes, in order, and nothing else."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from aiokafka import AIOKafkaProducer

from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_look import TopicLook
from tests.faults.harness import wait_until
from tests.kafka_topics import MANY, MB, Sent, Topics, numbered, read_out, send, values

pytestmark = [pytest.mark.services, pytest.mark.production]


class Transactions:
    """Producers with transactions, on an event loop of their own: one may be left open while a reader is asked."""

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics, self._topic = topics, topic
        self._loop = asyncio.new_event_loop()
        self._producers: dict[str, AIOKafkaProducer] = {}

    def begin(self, name: str, records: Iterable[Sent]) -> None:
        """Records in a transaction that is left open."""
        self._loop.run_until_complete(self._begin(name, records))

    def commit(self, name: str) -> None:
        """Ends it."""
        self._loop.run_until_complete(self._producers[name].commit_transaction())

    def abort(self, name: str) -> None:
        """Ends it: its records stay out."""
        self._loop.run_until_complete(self._producers[name].abort_transaction())

    def close(self) -> None:
        """Aborts those that are open."""
        for producer in self._producers.values():
            self._loop.run_until_complete(producer.stop())
        self._loop.close()

    async def _begin(self, name: str, records: Iterable[Sent]) -> None:
        if name not in self._producers:
            where = self._topics.broker.bootstrap
            made = AIOKafkaProducer(bootstrap_servers=where, transactional_id=f"{self._topic}-{name}", linger_ms=20)
            await made.start()
            self._producers[name] = made
        await self._producers[name].begin_transaction()
        await send(self._producers[name], self._topic, records)


@pytest.fixture
def transactions(topics: Topics, unique: str) -> Iterable[Transactions]:
    """On a topic of this test that has two partitions."""
    topics.make(unique, partitions=2)
    made = Transactions(topics, unique)
    yield made
    made.close()


def looked_until(stream: KafkaStream, topic: str, ends: dict[int, int]) -> TopicLook:
    """Marks are written after the answer to what ends a transaction."""
    wait_until(lambda: stream.look(topic).end == ends, message="all are marked")
    return stream.look(topic)


def test_what_is_committed_comes_and_what_is_aborted_does_not(
    transactions: Transactions, topics: Topics, stream: KafkaStream, unique: str
) -> None:
    transactions.begin("a", numbered(5))
    transactions.begin("b", numbered(5, first=10))
    topics.produce(unique, numbered(5, first=20))
    transactions.commit("a")
    transactions.abort("b")
    transactions.begin("b", numbered(5, first=30))
    transactions.commit("b")
    look = looked_until(stream, unique, {0: 23, 1: 0})  # 20 records and three marks
    wanted = [b"%d" % n for n in (*range(5), *range(20, 25), *range(30, 35))]
    read = stream.read(look.id, look.first, MANY, MB, 0)[0]
    assert (values(read.records), read.next, read.end) == (wanted, 23, 23)
    assert values(read_out(stream, look.id, look.first, 1, 1)[0]) == wanted
    assert values(read_out(stream, look.id, {0: 7}, 2, MB)[0]) == wanted[5:]


def test_nothing_behind_an_open_transaction_is_seen(
    transactions: Transactions, topics: Topics, stream: KafkaStream, unique: str
) -> None:
    topics.produce(unique, [*numbered(3), *numbered(2, partition=1)])
    transactions.begin("a", numbered(3, first=3))
    topics.produce(unique, numbered(3, first=6))
    look = stream.look(unique)
    assert look.end == {0: 3, 1: 2}
    read = stream.read(look.id, look.first, MANY, MB, 0)
    assert {p: (values(one.records), one.next, one.end) for p, one in read.items()} == {
        0: ([b"0", b"1", b"2"], 3, 3),
        1: ([b"0", b"1"], 2, 2),
    }
    began = time.monotonic()
    assert stream.read(look.id, {0: 3, 1: 2}, MANY, MB, 300) == {}
    assert time.monotonic() - began >= 0.3
    later = threading.Timer(0.3, transactions.commit, ("a",))
    later.start()
    read = stream.read(look.id, {0: 3}, MANY, MB, 2500)
    later.join()
    assert values(read[0].records)[:3] == [b"3", b"4", b"5"]
    found = read_out(stream, look.id, {0: 3})[0]
    assert values(found) == [b"3", b"4", b"5", b"6", b"7", b"8"]


def test_a_partition_of_aborted_records_only_is_passed(
    transactions: Transactions, topics: Topics, stream: KafkaStream, unique: str
) -> None:
    for first in range(0, 60, 20):
        transactions.begin("a", numbered(20, first=first, size=1000))
        transactions.abort("a")
    look = looked_until(stream, unique, {0: 63, 1: 0})
    read = stream.read(look.id, look.first, MANY, 100, 0)
    assert read[0].records == []
    assert read[0].next > 0
    assert read_out(stream, look.id, look.first, 1, 1)[0] == []
    topics.produce(unique, [Sent(b"seen")])
    assert values(read_out(stream, look.id, look.first, 1, 1)[0]) == [b"seen"]


def test_many_transactions_at_once_are_kept_apart(
    transactions: Transactions, topics: Topics, stream: KafkaStream, unique: str
) -> None:
    chance = random.Random(5)
    begun: dict[str, list[Sent]] = {}
    ends = Counter({0: 0, 1: 0})
    wanted: dict[int, set[bytes | None]] = {0: set(), 1: set()}
    for step in range(60):
        name = chance.choice("abcd")
        if name not in begun:
            begun[name] = numbered(chance.randint(1, 5), chance.randint(0, 1), first=step * 10, size=200)
            transactions.begin(name, begun[name])
            ends[begun[name][0].partition] += len(begun[name]) + 1  # and its mark
            continue
        commits, records = chance.random() < 0.5, begun.pop(name)
        (transactions.commit if commits else transactions.abort)(name)
        if commits:
            wanted[records[0].partition] |= {sent.value for sent in records}
    for name, records in begun.items():
        transactions.commit(name)
        wanted[records[0].partition] |= {sent.value for sent in records}
    look = looked_until(stream, unique, dict(ends))
    for limits in ((MANY, MB), (3, 500), (1, 1)):
        found = read_out(stream, look.id, look.first, *limits)
        assert {p: len(records) for p, records in found.items()} == {p: len(some) for p, some in wanted.items()}
        assert {p: set(values(records)) for p, records in found.items()} == wanted
