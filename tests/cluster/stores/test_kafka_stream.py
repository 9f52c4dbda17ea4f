"""Reading topics of a real broker: what comes, in which portions, and what stays out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.config_kafka import KafkaConnection
from cluster.errors import NotFound, Unavailable
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_records import StreamRecord
from tests.cluster.stores.topics import MANY, MB, Sent, Topics, numbered, read_out
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.services, pytest.mark.production]


@pytest.fixture
def topics(kafka_broker: KafkaBroker) -> Topics:
    """Those of the run's broker."""
    return Topics(kafka_broker)


@pytest.fixture
def stream(kafka_broker: KafkaBroker) -> Iterator[KafkaStream]:
    """A reader on the run's broker."""
    opened = KafkaStream(KafkaConnection(bootstrap=kafka_broker.bootstrap), 5.0, 4 * MB)
    yield opened
    opened.close()


def values(records: list[StreamRecord]) -> list[bytes | None]:
    return [record.value for record in records]


def test_a_topic_is_looked_up_and_read_by_partition(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=7)
    for partition in (0, 3, 6):
        topics.produce(unique, numbered(10 + partition, partition))
    look = stream.look(unique)
    assert look.name == unique
    assert look.first == dict.fromkeys(range(7), 0)
    assert look.end == {0: 10, 1: 0, 2: 0, 3: 13, 4: 0, 5: 0, 6: 16}
    found = stream.read(look.id, look.first, MANY, MB, 100)
    assert {p: values(read.records) for p, read in found.items()} == {
        p: [sent.value for sent in numbered(10 + p)] for p in (0, 3, 6)
    }
    assert {p: (read.next, read.end) for p, read in found.items()} == {p: (10 + p, 10 + p) for p in (0, 3, 6)}
    assert values(stream.read(look.id, {3: 12}, MANY, MB, 0)[3].records) == [b"12"]
    assert stream.read(look.id, {0: 10, 1: 0}, MANY, MB, 50) == {}


def test_a_record_comes_as_it_was_sent(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique)
    headers = [("a", b"1"), ("ä", b""), ("a", b"2")]
    topics.produce(unique, [Sent(b"v", 0, b"k", headers, 1_700_000_000_123), Sent(None, 0, b"k"), Sent(b"")])
    look = stream.look(unique)
    full, tombstone, empty = stream.read(look.id, {0: 0}, MANY, MB, 100)[0].records
    assert full == StreamRecord(0, 1_700_000_000_123, b"k", b"v", headers)
    assert (tombstone.offset, tombstone.key, tombstone.value, tombstone.headers) == (1, b"k", None, [])
    assert (empty.offset, empty.key, empty.value) == (2, None, b"")


def test_a_topic_that_is_not_there_is_not_made(topics: Topics, stream: KafkaStream, unique: str) -> None:
    for name in (unique, f"{unique} with a space", ""):
        with pytest.raises(NotFound):
            stream.look(name)
    with pytest.raises(NotFound):
        stream.look(unique)
    topics.make(unique, partitions=2)
    assert set(stream.look(unique).first) == {0, 1}


def test_limits_are_kept_and_nothing_comes_twice(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=2)
    topics.produce(unique, numbered(200, 0, size=50) + numbered(50, 1))
    look = stream.look(unique)
    read = stream.read(look.id, look.first, 7, 200, 0)
    assert {partition: len(one.records) for partition, one in read.items()} == {0: 3, 1: 7}
    found = read_out(stream, look.id, look.first, 7, 200)
    assert values(found[0]) == [sent.value for sent in numbered(200, size=50)]
    assert values(found[1]) == [sent.value for sent in numbered(50)]


def test_nobody_listens() -> None:
    stream = KafkaStream(KafkaConnection(bootstrap="127.0.0.1:9, 127.0.0.1:10"), 2.0, MB)
    with pytest.raises(Unavailable, match=r"streams\.kafka\.bootstrap"):
        stream.look("any")
    with pytest.raises(Unavailable, match=r"streams\.kafka\.bootstrap"):
        stream.read("00" * 16, {0: 0}, 1, 1, 0)
    stream.close()
    with pytest.raises(Unavailable, match="closed"):
        stream.look("any")
