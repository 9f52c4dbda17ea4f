"""Reading topics while things happen to them, to their brokers and to the connection."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from cluster.errors import Corrupt, NotFound, Rejected, Unavailable
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_records import OffsetLost, Reached, StreamGone
from tests.fault_proxy import BLACK_HOLE, HALF_OPEN, FaultProxy
from tests.faults.harness import wait_until
from tests.kafka_batches import segment
from tests.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.kafka_topics import MANY, MB, Sent, Topics, numbered, read_out, reader, values

pytestmark = [pytest.mark.services, pytest.mark.production]

T = TypeVar("T")

WITHIN_S = 60.0


def eventually(call: Callable[[], T]) -> T:
    """What it returns, called again while the brokers do not answer."""
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


@pytest.fixture
def mortal(mortal_kafka: KafkaBroker) -> Topics:
    """Topics of a broker that may be killed."""
    if not mortal_kafka.running:
        mortal_kafka.start()
    return Topics(mortal_kafka)


@pytest.fixture
def proxy(kafka_broker: KafkaBroker) -> Iterator[FaultProxy]:
    """In front of the run's broker."""
    with FaultProxy.tcp(("127.0.0.1", kafka_broker.proxied_port), kafka_broker.proxy_port) as running:
        yield running


def test_a_topic_that_was_deleted_or_made_again_is_gone(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=2)
    topics.produce(unique, numbered(10))
    look = stream.look(unique)
    assert len(stream.read(look.id, {0: 0}, 3, MB, 0)[0].records) == 3
    topics.delete(unique)
    with pytest.raises(StreamGone) as raised:
        stream.read(look.id, {0: 10, 1: 0}, MANY, MB, 0)
    assert raised.value.topic_id == look.id
    with pytest.raises(NotFound):
        stream.look(unique)
    topics.make(unique, partitions=2)
    topics.produce(unique, numbered(20, first=100))
    for _ in range(2):
        with pytest.raises(StreamGone):
            stream.read(look.id, {0: 10}, MANY, MB, 100)
    again = stream.look(unique)
    assert again.id != look.id
    assert again.end == {0: 20, 1: 0}
    assert len(read_out(stream, again.id, again.first)[0]) == 20


def test_a_topic_that_goes_while_a_reader_waits_is_gone(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique)
    look = stream.look(unique)
    stream.read(look.id, {0: 0}, MANY, MB, 0)
    later = threading.Timer(0.3, topics.delete, (unique,))
    later.start()
    with pytest.raises(StreamGone):
        for _ in range(4):
            stream.read(look.id, {0: 0}, MANY, MB, 1000)
    later.join()


def test_records_that_retention_removed_are_lost(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique, partitions=2)
    topics.produce(unique, [*numbered(10), *numbered(3, 1)])
    look = stream.look(unique)
    topics.trim(unique, 0, 6)
    found = stream.read(look.id, {0: 2, 1: 0}, MANY, MB, 0)
    lost = found[0].failed
    assert isinstance(lost, OffsetLost)
    assert (lost.partition, lost.asked, lost.first, lost.end, lost.replaced) == (0, 2, 6, 10, None)
    assert (len(found[1].records), found[1].failed) == (3, None)
    assert stream.look(unique).first == {0: 6, 1: 0}
    assert values(stream.read(look.id, {0: 6}, MANY, MB, 0)[0].records) == [b"6", b"7", b"8", b"9"]


def test_an_offset_beyond_the_end_is_lost(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique)
    topics.produce(unique, numbered(4))
    look = stream.look(unique)
    assert stream.read(look.id, {0: 4}, MANY, MB, 0) == {}
    lost = stream.read(look.id, {0: 5}, MANY, MB, 0)[0].failed
    assert isinstance(lost, OffsetLost)
    assert (lost.asked, lost.first, lost.end) == (5, 0, 4)
    assert "lost its end" in str(lost)


def test_partitions_that_are_added_can_be_read(topics: Topics, stream: KafkaStream, unique: str) -> None:
    topics.make(unique)
    look = stream.look(unique)
    stream.read(look.id, {0: 0}, MANY, MB, 0)
    topics.widen(unique, 3)
    wait_until(lambda: set(stream.look(unique).end) == {0, 1, 2}, WITHIN_S, "they have leaders")
    assert stream.look(unique).id == look.id
    topics.produce(unique, numbered(3, 2))
    assert values(eventually(lambda: stream.read(look.id, {2: 0}, MANY, MB, 0))[2].records) == [b"0", b"1", b"2"]


def test_a_broker_that_was_killed_is_read_again(mortal: Topics, unique: str) -> None:
    mortal.make(unique, partitions=3)
    mortal.produce(unique, numbered(50, 0) + numbered(50, 2))
    stream = reader(mortal.broker.bootstrap, timeout_s=3.0)
    look = stream.look(unique)
    at = {p: read.next for p, read in stream.read(look.id, look.first, 10, MB, 0).items()}
    assert at == {0: 10, 2: 10}
    waiting = threading.Timer(0.3, mortal.broker.kill)
    waiting.start()
    with pytest.raises(Unavailable, match=r"streams\.kafka\.bootstrap"):
        for _ in range(5):
            stream.read(look.id, {1: 0}, MANY, MB, 1000)
    waiting.join()
    with pytest.raises(Unavailable):
        stream.look(unique)
    mortal.broker.start()
    assert eventually(lambda: stream.look(unique)) == look
    mortal.produce(unique, numbered(5, 1))
    found = eventually(lambda: read_out(stream, look.id, {0: 10, 1: 0, 2: 10}))
    assert {p: len(records) for p, records in found.items()} == {0: 40, 1: 5, 2: 40}
    stream.close()


def test_a_batch_that_is_damaged_hides_no_other_partition(mortal: Topics, unique: str) -> None:
    """In its records, in its head, or in its length: then a broker that runs finds nothing, and does not say so."""
    mortal.make(unique, partitions=4)
    mortal.produce(unique, [Sent(b"to be damaged" * 10, p) for p in range(4)])
    mortal.broker.stop()
    for partition, at in ((0, 100), (1, 22)):
        flip(segment(mortal.broker, unique, partition), at)
    mortal.broker.start()
    flip(segment(mortal.broker, unique, 2), 8)
    stream = reader(mortal.broker.bootstrap)
    look = eventually(lambda: stream.look(unique))
    found = eventually(lambda: stream.read(look.id, dict.fromkeys(range(4), 0), MANY, MB, 0))
    assert values(found[3].records) == [b"to be damaged" * 10]
    for partition in (0, 1, 2):
        assert isinstance(found[partition].failed, Corrupt)
        assert f"partition {partition}: " in str(found[partition].failed)
        alone = stream.read(look.id, {partition: 0}, MANY, MB, 0)[partition].failed
        assert str(alone) == str(found[partition].failed)
    stream.close()


def flip(file: Path, at: int) -> None:
    """Changes one byte in its place."""
    with file.open("r+b") as data:
        data.seek(at)
        was = data.read(1)[0]
        data.seek(at)
        data.write(bytes([was ^ 1]))


def test_other_records_in_the_place_of_those_that_were_read_are_told(
    mortal: Topics, unique: str, tmp_path: Path
) -> None:
    mortal.make(unique)
    mortal.produce(unique, numbered(6))
    folder = segment(mortal.broker, unique).parent
    shutil.copytree(folder, tmp_path / "backup", ignore=shutil.ignore_patterns("*.*index"))
    mortal.produce(unique, numbered(4, first=6))
    stream = reader(mortal.broker.bootstrap)
    look = stream.look(unique)
    read = stream.read(look.id, {0: 0}, MANY, MB, 0)[0]
    at = {0: Reached(read.next, read.leader_epoch)}
    epochs = {0: read.leader_epoch}
    assert read.leader_epoch >= 0
    assert stream.read(look.id, {0: 10}, MANY, MB, 0, epochs) == {}
    mortal.broker.stop()
    mortal.broker.start()
    mortal.produce(unique, numbered(1, first=10))
    assert eventually(lambda: stream.look(unique, at)).replaced == {}, "a new leader alone loses nothing"
    later = eventually(lambda: stream.read(look.id, {0: 10}, MANY, MB, 0, epochs))[0]
    assert (values(later.records), later.leader_epoch > read.leader_epoch) == ([b"10"], True)
    mortal.broker.stop()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    mortal.broker.start()
    mortal.produce(unique, numbered(20, first=100))
    for offset, epoch in ((10, read.leader_epoch), (11, later.leader_epoch)):
        at = {0: Reached(offset, epoch)}
        assert eventually(lambda at=at: stream.look(unique, at)).replaced == {0: 6}  # type: ignore[misc]
        lost = stream.read(look.id, {0: offset}, MANY, MB, 0, {0: epoch})[0].failed
        assert isinstance(lost, OffsetLost)
        assert (lost.asked, lost.replaced) == (offset, 6)
    now = stream.read(look.id, {0: 6}, MANY, MB, 0)[0]
    assert values(now.records) == [sent.value for sent in numbered(20, first=100)]
    unknown = {0: now.leader_epoch + 5}
    assert stream.look(unique, {0: Reached(26, unknown[0])}).replaced == {0: 0}, "of a leader that never was"
    lost = stream.read(look.id, {0: 26}, MANY, MB, 0, unknown)[0].failed
    assert isinstance(lost, OffsetLost)
    assert lost.replaced == 0
    stream.close()


def test_brokers_that_moved_are_found_by_their_first_names(mortal: Topics, topics: Topics, unique: str) -> None:
    """A name that leads to another cluster then: as if all brokers had new addresses."""
    mortal.make(unique)
    topics.make(unique, partitions=2)
    before, after = (("127.0.0.1", int(one.broker.bootstrap.rpartition(":")[2])) for one in (mortal, topics))
    with FaultProxy.tcp(before) as name:
        port = name.address[1]
        stream = reader(f"127.0.0.1:{port}", timeout_s=2.0)
        assert set(stream.look(unique).end) == {0}
    mortal.broker.kill()
    with FaultProxy.tcp(after, port):
        assert set(eventually(lambda: stream.look(unique)).end) == {0, 1}
    stream.close()


@pytest.mark.parametrize("faults", [HALF_OPEN, BLACK_HOLE])
def test_a_connection_that_died_unnoticed_delays_only(
    proxy: FaultProxy, topics: Topics, unique: str, faults: Any
) -> None:
    topics.make(unique)
    topics.produce(unique, numbered(3))
    stream = reader(f"127.0.0.1:{proxy.address[1]}", timeout_s=2.0)
    look = stream.look(unique)
    assert values(stream.read(look.id, {0: 0}, 1, 1, 0)[0].records) == [b"0"]
    proxy.set(faults)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        stream.read(look.id, {0: 2}, MANY, MB, 0)
    assert time.monotonic() - began < 3.5
    proxy.heal()
    assert values(eventually(lambda: stream.read(look.id, {0: 2}, MANY, MB, 0))[0].records) == [b"2"]
    stream.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_passwords_and_tls(kafka_broker: KafkaBroker, topics: Topics, unique: str, mechanism: str) -> None:
    topics.make(unique)
    topics.produce(unique, numbered(3))
    secret = {"mechanism": mechanism, "user": USER, "password": SecretStr(PASSWORD)}
    locked = reader(kafka_broker.locked, security="SASL_PLAINTEXT", **secret)
    sealed = reader(kafka_broker.sealed, security="SASL_SSL", ca_file=kafka_broker.ca_file, **secret)
    unvouched = reader(kafka_broker.sealed, security="SASL_SSL", **secret)
    for stream in (locked, sealed):
        assert len(read_out(stream, stream.look(unique).id, {0: 0})[0]) == 3
    with pytest.raises(Rejected, match=r"streams\.kafka\.ca_file"):
        unvouched.look(unique)
    with pytest.raises(Rejected, match=r"streams\.kafka\.ca_file /nowhere"):
        reader(kafka_broker.sealed, security="SASL_SSL", ca_file="/nowhere", **secret).look(unique)
    for stream in (locked, sealed, unvouched):
        stream.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_named_and_shown_nowhere(
    kafka_broker: KafkaBroker, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secret = {"mechanism": mechanism, "user": USER, "password": SecretStr("guessed-wrong")}
    wrong = reader(kafka_broker.locked, security="SASL_PLAINTEXT", **secret)
    for call in (lambda: wrong.look("any"), lambda: wrong.read("00" * 16, {0: 0}, 1, 1, 0)):
        with pytest.raises(Unavailable, match=r"streams\.kafka\.user, its password") as raised:
            call()
        assert "guessed-wrong" not in f"{raised.value!r} {raised.value.__cause__!r} {caplog.text}"
    wrong.close()


def test_nobody_listens() -> None:
    stream = reader("127.0.0.1:9, 127.0.0.1:10", timeout_s=2.0)
    with pytest.raises(Unavailable, match=r"streams\.kafka\.bootstrap"):
        stream.look("any")
    with pytest.raises(Unavailable, match=r"streams\.kafka\.bootstrap"):
        stream.read("00" * 16, {0: 0}, 1, 1, 0)
    stream.close()


def test_calls_of_a_closed_reader_say_so(topics: Topics, unique: str) -> None:
    topics.make(unique)
    stream = reader(topics.broker.bootstrap)
    look = stream.look(unique)
    waiting = threading.Timer(0.2, stream.close)
    waiting.start()
    with pytest.raises(Unavailable, match="closed"):
        stream.read(look.id, {0: 0}, 1, MB, 2000)
    waiting.join()
    with pytest.raises(Unavailable, match="closed"):
        stream.look(unique)
    stream.close()
