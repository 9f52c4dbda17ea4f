"""What only the event log on Kafka does, on a real broker; what every log does is in test_event_log.py."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.produce import ProduceRequest_v8
from pydantic import SecretStr

from cluster.config_kafka import KafkaSettings
from cluster.errors import Corrupt, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.kafka_entry import encoded
from cluster.stores.kafka_log_open import open_kafka_log
from cluster.stores.kafka_log_setup import topic_config
from cluster.stores.kafka_topic import TopicGone
from cluster.stores.kafka_wire import Produce
from cluster.stores.log import Append, Generation, LogGap, LogLostTail, Seam, check_tails
from cluster.stores.open_log import open_log
from tests.cluster.stores.logs import MANY, MB, SETTINGS, KafkaPlace, fill
from tests.fault_proxy import HALF_OPEN, FaultProxy, Faults
from tests.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.kafka_topics import Topics

pytestmark = [pytest.mark.services, pytest.mark.production]

Do = Callable[[AIOKafkaAdminClient], Awaitable[Any]]


def as_operator(place: KafkaPlace, do: Do) -> None:
    """Does something to the cluster that the log knows nothing of."""
    Topics(place.broker).administer(do)


def recreate(place: KafkaPlace) -> None:
    topics = Topics(place.broker)
    topics.delete(place.topic)
    topics.make(place.topic, 4)


def configure(place: KafkaPlace, topic: str, **config: str) -> None:
    changes = {name.replace("_", "."): value for name, value in config.items()}
    wanted = topic_config(place.arguments()[0]) | changes  # what is left out would be as the broker has it
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, wanted)
    as_operator(place, lambda admin: admin.alter_configs([resource]))


def file_bytes(place: KafkaPlace) -> int:
    found: list[int] = []

    async def look(admin: AIOKafkaAdminClient) -> None:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, place.topic)])
        found.extend(int(value) for name, value, *_ in answer.resources[0][4] if name == "segment.bytes")

    as_operator(place, look)
    return found[0]


def produce(place: KafkaPlace, value: bytes, transactional_id: str | None = None) -> None:
    async def run() -> None:
        named = {"transactional_id": transactional_id} if transactional_id else {}
        async with AIOKafkaProducer(bootstrap_servers=place.broker.bootstrap, **named) as producer:
            if transactional_id:
                await producer.begin_transaction()
            await producer.send_and_wait(place.topic, value, partition=0, headers=[("n", b"1"), ("t", b"1")])
            if transactional_id:
                await producer.commit_transaction()

    asyncio.run(run())


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_entries_of_any_size_come_back_compressed_or_not(kafka_broker: KafkaBroker, unique: str, codec: str) -> None:
    place = KafkaPlace(kafka_broker, unique, compression=codec)
    log = place.open()
    alike, unlike = bytes(MB), os.urandom(MB)
    assert log.append([Append(0, alike, 1), Append(0, unlike, 2), Append(0, b"", 0)]) == [1, 2, 3]
    assert [entry.data for entry in log.read(0, 0, MANY, 3 * MB)] == [alike, unlike, b""]
    assert (log.bytes_used() > 2 * MB) == (codec == "none")
    place.close()


@pytest.fixture
def proxy(kafka_broker: KafkaBroker) -> Iterator[FaultProxy]:
    """In front of the run's broker."""
    with FaultProxy.tcp(("127.0.0.1", kafka_broker.proxied_port), kafka_broker.proxy_port) as running:
        yield running


@pytest.fixture
def through(kafka_broker: KafkaBroker, proxy: FaultProxy, unique: str) -> Iterator[KafkaPlace]:
    """A place for a log that is reached through the proxy."""
    made = KafkaPlace(kafka_broker, unique, compression="none", bootstrap=f"127.0.0.1:{proxy.address[1]}")
    yield made
    made.close()


def test_a_sequential_reader_fetches_nothing_twice(through: KafkaPlace, proxy: FaultProxy) -> None:
    log = through.open()
    log.append([Append(0, os.urandom(1000), 1) for _ in range(200)])
    after, before = 0, proxy.bytes_to_client
    while entries := log.read(0, after, 7, 10_000):
        after = entries[-1].number
    assert after == 200
    assert 200_000 < proxy.bytes_to_client - before < 1.5 * 200_000


def test_an_entry_whose_answer_was_lost_is_there_once(through: KafkaPlace, proxy: FaultProxy) -> None:
    log = through.open()
    assert fill(log, 1) == [1]

    def heal() -> None:
        while not proxy.answers_lost:
            time.sleep(0.01)
        proxy.heal()

    proxy.set(Faults(lose_answer_to=b"marked"))
    healer = threading.Thread(target=heal)
    healer.start()
    numbers = log.append([Append(0, b"marked 1", 1), Append(0, b"marked 2", 1)])
    healer.join()
    assert numbers == [2, 3]
    assert [entry.data for entry in log.read(0, 1, MANY, MB)] == [b"marked 1", b"marked 2"]
    assert fill(log, 1) == [4]


def test_an_append_that_is_never_answered_has_an_unknown_outcome(through: KafkaPlace, proxy: FaultProxy) -> None:
    log = through.open(timeout_s=1.0)
    fill(log, 1)
    proxy.set(Faults(lose_answer_to=b"marked"))
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="same again"):
        log.append([Append(0, b"marked", 1)])
    assert time.monotonic() - began < 2.5
    assert proxy.answers_lost > 1
    proxy.heal()
    assert log.append([Append(0, b"marked", 1)]) == [3]
    assert [entry.data for entry in log.read(0, 1, MANY, MB)] == [b"marked", b"marked"]


def test_a_connection_that_died_unnoticed_costs_no_entry(through: KafkaPlace, proxy: FaultProxy) -> None:
    log = through.open(timeout_s=4.0)
    fill(log, 1)
    proxy.set(HALF_OPEN)
    healer = threading.Timer(0.5, proxy.heal)
    healer.start()
    assert fill(log, 1) == [2]
    healer.join()
    assert [entry.number for entry in log.read(0, 0, MANY, MB)] == [1, 2]


def test_deleted_entries_are_a_gap(kafka_place: KafkaPlace) -> None:
    log = kafka_place.open()
    fill(log, 10)
    log.read(0, 0, 2, MB)
    partition = TopicPartition(kafka_place.topic, 0)
    as_operator(kafka_place, lambda admin: admin.delete_records({partition: RecordsToDelete(6)}))
    assert log.begins()[0] == 7
    with pytest.raises(LogGap) as raised:
        kafka_place.open().read(0, 2, MANY, MB)
    assert raised.value.first_available == 7
    assert fill(log, 1) == [11]


def test_a_topic_that_was_made_again_is_not_the_log(kafka_place: KafkaPlace) -> None:
    log, reader = kafka_place.open(), kafka_place.open()
    fill(log, 3)
    assert len(reader.read(0, 0, MANY, MB)) == 3
    recreate(kafka_place)
    for _ in range(5):
        produce(kafka_place, b"another log's")
    with pytest.raises(LogLostTail):
        reader.read(0, 3, MANY, MB)
    for partition in (0, 1):
        with pytest.raises(TopicGone):
            fill(log, 1, partition)
    with pytest.raises(TopicGone, match="another log"):
        kafka_place.open()


def test_a_broker_that_takes_only_names_is_found_out_by_its_numbers(
    kafka_place: KafkaPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Produce, "_CLASSES", (ProduceRequest_v8,))
    log = kafka_place.open()
    assert fill(log, 3) == [1, 2, 3]
    recreate(kafka_place)
    produce(kafka_place, b"another log's")
    with pytest.raises(LogLostTail):
        fill(log, 1)
    with pytest.raises(TopicGone):
        fill(log, 1, partition=1)


def test_an_append_that_was_broken_off_does_not_swallow_the_next(through: KafkaPlace, proxy: FaultProxy) -> None:
    log = through.open(timeout_s=10.0)
    fill(log, 1)
    proxy.set(HALF_OPEN)
    work = log._appender.append({0: [encoded(Append(0, b"broken off", 1), 0, 0)]})  # type: ignore[attr-defined]
    broken = asyncio.run_coroutine_threadsafe(work, log._thread._loop)  # type: ignore[attr-defined]
    until = time.monotonic() + 10
    while kafka_ends(through) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    broken.cancel()
    proxy.heal()
    assert log.append([Append(0, b"next", 1)]) == [3]
    assert [entry.data for entry in log.read(0, 1, MANY, MB)] == [b"broken off", b"next"]


def kafka_ends(place: KafkaPlace) -> int:
    """Where partition 0 ends, asked past the proxy."""
    direct = KafkaPlace(place.broker, place.name)
    end = direct.open().ends()[0]
    direct.close()
    return end


def test_calls_of_a_closed_log_say_so(kafka_place: KafkaPlace) -> None:
    log = kafka_place.open()
    waiting = threading.Timer(0.2, log.close)
    waiting.start()
    with pytest.raises(Unavailable, match="closed"):
        log.read(0, 0, 1, MB, block_ms=900)
    waiting.join()
    with pytest.raises(Unavailable, match="closed"):
        log.ends()


def test_a_topic_that_is_gone_is_a_lost_tail(kafka_place: KafkaPlace) -> None:
    log = kafka_place.open()
    fill(log, 3)
    as_operator(kafka_place, lambda admin: admin.delete_topics([kafka_place.topic]))
    with pytest.raises(LogLostTail):
        log.read(0, 3, MANY, MB)
    with pytest.raises(TopicGone):
        log.read(0, 0, MANY, MB)
    with pytest.raises(TopicGone):
        fill(log, 1)


def test_a_log_whose_files_lost_their_end_is_found(own_kafka_place: KafkaPlace) -> None:
    log = own_kafka_place.open()
    for _ in range(10):
        log.append([Append(0, os.urandom(500), 1)])
    taken = log.ends()
    own_kafka_place.kill()
    file = own_kafka_place.broker.folder / "data" / f"{own_kafka_place.topic}-0" / f"{0:020}.log"
    os.truncate(file, file.stat().st_size - 700)
    own_kafka_place.start()
    with pytest.raises(LogLostTail):
        fill(log, 1)
    shorter = own_kafka_place.open()
    assert shorter.identity == log.identity
    assert 0 < shorter.ends()[0] < 10
    with pytest.raises(LogLostTail):
        shorter.read(0, 10, MANY, MB)
    with pytest.raises(LogLostTail):
        check_tails(shorter.ends(), taken)


def test_an_entry_of_somebody_else_is_found(kafka_place: KafkaPlace) -> None:
    log = kafka_place.open()
    fill(log, 2)
    produce(kafka_place, b"fits by chance", transactional_id=f"{kafka_place.name}-t")
    assert log.wait_for(0, 4, 5000), "the transaction's end is in the log, too"
    fill(log, 1)
    assert [entry.number for entry in log.read(0, 0, 2, MB)] == [1, 2]
    with pytest.raises(Corrupt, match="5 stands where 4 belongs"):
        log.read(0, 2, MANY, MB)


@pytest.mark.parametrize(
    ("topic", "config", "message"),
    [
        ("log-1", {"retention_ms": "1000000"}, r"retention\.ms=1000000, and the log needs -1"),
        ("log-1", {"cleanup_policy": "compact"}, r"cleanup\.policy=compact, and the log needs delete"),
        ("log-1", {"unclean_leader_election_enable": "true"}, r"unclean\.leader\.election\.enable"),
        ("log-1", {"max_message_bytes": "1000"}, r"max\.message\.bytes=1000"),
        ("log-1", {"flush_messages": "1000"}, r"flush\.messages"),
        ("log-meta", {"retention_ms": "1000000"}, r"log-meta has retention\.ms"),
    ],
)
def test_a_topic_that_would_lose_entries_is_refused(
    kafka_place: KafkaPlace, topic: str, config: dict[str, str], message: str
) -> None:
    kafka_place.open()
    configure(kafka_place, f"{kafka_place.name}.{topic}", **config)
    with pytest.raises(Rejected, match=message):
        kafka_place.open()


def test_too_few_replicas_are_refused(kafka_broker: KafkaBroker, kafka_place: KafkaPlace, unique: str) -> None:
    with pytest.raises(Rejected, match=r"(?i)replication factor"):
        KafkaPlace(kafka_broker, f"{unique}three", replication_factor=3, min_in_sync=2).open()
    kafka_place.open()
    with pytest.raises(Rejected, match=r"1 replicas, and log\.kafka\.replication_factor is 2"):
        KafkaPlace(kafka_broker, unique, replication_factor=2, min_in_sync=1).open()


def test_partitions_that_somebody_added_are_refused(kafka_place: KafkaPlace) -> None:
    kafka_place.open()
    more = {kafka_place.topic: NewPartitions(8)}
    as_operator(kafka_place, lambda admin: admin.create_partitions(more))
    for count in (4, 8):
        with pytest.raises(Corrupt, match=r"has 4 partitions, and its topic .* has 8"):
            kafka_place.open(partitions=count)


def test_partitions_added_by_who_was_killed_then_are_taken(kafka_place: KafkaPlace) -> None:
    """Between the topic's partitions and the record that says that they count."""
    fill(kafka_place.open(), 2)
    more = {kafka_place.topic: NewPartitions(8)}
    as_operator(kafka_place, lambda admin: admin.create_partitions(more))
    log = open_log(*kafka_place.arguments(), mending=True)
    assert (log.identity.partitions, log.all_partitions, len(log.ends())) == (4, 8, 8)
    log.begin_generation(Generation(2, {p: Seam(end, end, end) for p, end in log.ends().items()}, 6))
    log.finish_generation()
    log.close()
    again = kafka_place.open(partitions=6)
    assert (again.all_partitions, fill(again, 1, partition=5)) == (8, [1])


@pytest.mark.parametrize(("own", "expected"), [("", 2 * MB), (str(3 * MB // 2), 3 * MB // 2)])
def test_more_partitions_have_smaller_files(kafka_place: KafkaPlace, own: str, expected: int) -> None:
    """What one file of each holds cannot be trimmed. A smaller one that somebody chose stays."""
    log = kafka_place.open(max_bytes=256 * MB, entry_bytes=MB // 4)
    assert file_bytes(kafka_place) == 4 * MB
    fill(log, 2)
    log.close()
    if own:
        configure(kafka_place, kafka_place.topic, segment_bytes=own)
    log = open_log(*kafka_place.arguments(max_bytes=256 * MB, entry_bytes=MB // 4), mending=True)
    ends = dict.fromkeys(range(8), 0) | log.ends()
    log.begin_generation(Generation(2, {p: Seam(end, end, end) for p, end in ends.items()}, 8))
    log.finish_generation()
    log.finish_generation()
    log.close()
    assert file_bytes(kafka_place) == expected


def test_trimmed_entries_leave_the_disk(kafka_place: KafkaPlace) -> None:
    log = kafka_place.open(max_bytes=16 * MB)
    for _ in range(6):
        log.append([Append(0, os.urandom(MB), 1)])
    used = log.bytes_used()
    log.trim(0, 7)
    until = time.monotonic() + 20
    while log.bytes_used() > used / 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert log.bytes_used() <= used / 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_passwords_and_tls(kafka_broker: KafkaBroker, unique: str, mechanism: str) -> None:
    secret = {"mechanism": mechanism, "user": USER, "password": SecretStr(PASSWORD)}
    locked = KafkaPlace(kafka_broker, unique, bootstrap=kafka_broker.locked, security="SASL_PLAINTEXT", **secret)
    assert fill(locked.open(), 1) == [1]
    sealed = {"bootstrap": kafka_broker.sealed, "security": "SASL_SSL", **secret}
    vouched = KafkaPlace(kafka_broker, unique, ca_file=kafka_broker.ca_file, **sealed)
    assert fill(vouched.open(), 1) == [2]
    with pytest.raises(Rejected, match="ca_file"):
        KafkaPlace(kafka_broker, unique, **sealed).open()
    locked.close()
    vouched.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_named_and_shown_nowhere(
    kafka_broker: KafkaBroker, unique: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = KafkaPlace(
        kafka_broker, unique, bootstrap=kafka_broker.locked, security="SASL_PLAINTEXT", mechanism=mechanism, user=USER,
        password=SecretStr("guessed-wrong"),
    )  # fmt: skip
    with pytest.raises(Unavailable, match="password") as raised:
        wrong.open()
    shown = (
        f"{raised.value} {raised.value.__cause__} {wrong.settings!r} {wrong.settings.model_dump_json()} {caplog.text}"
    )
    assert "guessed-wrong" not in shown


def test_brokers_are_named_where_none_answers() -> None:
    nowhere = SETTINGS.model_copy(update={"kafka": KafkaSettings(bootstrap="127.0.0.1:9, 127.0.0.1:10")})
    with pytest.raises(Unavailable, match=r"log\.kafka\.bootstrap"):
        open_kafka_log(nowhere)
