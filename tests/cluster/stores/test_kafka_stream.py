"""Reading topics of a real broker: what comes, in which portions, and what stays out."""

from __future__ import annotations

import os
import threading
import time

import pytest

from cluster.errors import NotFound
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_records import StreamRecord
from tests.fault_proxy import FaultProxy
from tests.kafka_broker import KafkaBroker
from tests.kafka_topics import MANY, MB, Sent, Topics, numbered, read_out, reader, values

pytestmark = [pytest.mark.services, pytest.mark.production]


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


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(topics: Topics, stream: KafkaStream, unique: str, codec: str | None) -> None:
    topics.make(unique)
    topics.produce(unique, numbered(500, size=100), compression_type=codec)
    look = stream.look(unique)
    assert values(stream.read(look.id, {0: 0}, MANY, MB, 0)[0].records) == values_sent(500, 100)
    assert values(read_out(stream, look.id, {0: 250}, 7, 500)[0]) == values_sent(500, 100)[250:]


def values_sent(count: int, size: int = 0) -> list[bytes | None]:
    return [sent.value for sent in numbered(count, size=size)]


def test_a_record_that_is_larger_than_a_fetch_comes(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=3)
    large = b"x" * (900 << 10)
    topics.produce(unique, [Sent(large, p) for p in range(3)] + numbered(3, 1))
    look = stream.look(unique)
    read = stream.read(look.id, look.first, MANY, 1, 0)
    assert {p: values(one.records) for p, one in read.items()} == {p: [large] for p in range(3)}
    assert values(read_out(stream, look.id, look.first, MANY, 1)[1]) == [large, *values_sent(3)]


def test_a_reading_waits_until_there_is_something(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=3)
    look = stream.look(unique)
    began = time.monotonic()
    assert stream.read(look.id, look.first, MANY, MB, 300) == {}
    assert time.monotonic() - began >= 0.3
    later = threading.Timer(0.3, topics.produce, (unique, [Sent(b"late", 2)]))
    later.start()
    assert values(stream.read(look.id, look.first, MANY, MB, 2500)[2].records) == [b"late"]
    later.join()
    with pytest.raises(ValueError, match="half of timeout_s"):
        stream.read(look.id, look.first, MANY, MB, 2501)


def test_a_sequential_reader_fetches_nothing_twice(kafka_broker: KafkaBroker, topics: Topics, unique: str) -> None:
    topics.make(unique)
    topics.produce(unique, [Sent(os.urandom(1000)) for _ in range(200)])
    with FaultProxy.tcp(("127.0.0.1", kafka_broker.proxied_port), kafka_broker.proxy_port) as proxy:
        stream = reader(f"127.0.0.1:{proxy.address[1]}")
        look = stream.look(unique)
        before = proxy.bytes_to_client
        assert len(read_out(stream, look.id, look.first, 7, 10_000)[0]) == 200
        assert 200_000 < proxy.bytes_to_client - before < 1.5 * 200_000
        stream.close()


def test_a_compacted_topic_has_gaps(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(
        unique,
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="200",
    )
    look = stream.look(unique)
    until = time.monotonic() + 30
    number = 0
    while time.monotonic() < until:
        topics.produce(unique, [Sent(b"%d" % (number + n), key=b"%d" % (n % 5)) for n in range(50)])
        number += 50
        found = read_out(stream, look.id, look.first, 7, 100)[0]
        if found[0].offset > 0 or len(found) < number:
            break
        time.sleep(0.5)
    assert len(found) < number
    assert found[-1].offset == number - 1
    assert {record.key: record.value for record in found} == {b"%d" % (n % 5): b"%d" % n for n in range(number)}
