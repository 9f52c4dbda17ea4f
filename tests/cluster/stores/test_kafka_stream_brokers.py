"""Reading topics of a broker that forbids some of it, and of three brokers of which one dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_topic import NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from pydantic import SecretStr

from cluster.errors import NotFound, Rejected, Retryable
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.kafka_stream_records import OffsetLost, Reached, StreamGone, StreamRead
from tests.faults.harness import wait_until
from tests.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.kafka_topics import MANY, MB, Topics, numbered, reader, values

pytestmark = [pytest.mark.services, pytest.mark.production, pytest.mark.slow]

WITHIN_S = 60.0
TOPIC, LITERAL, READ, DESCRIBE, ALLOW = 2, 3, 3, 8, 3
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


def grant(topics: Topics, name: str, operation: int) -> None:
    """Lets `USER` do it to a topic."""
    change(topics, CreateAclsRequest(TOPIC, name, LITERAL, f"User:{USER}", "*", operation, ALLOW))


def revoke(topics: Topics, name: str, operation: int) -> None:
    """Takes what was granted back."""
    change(topics, DeleteAclsRequest(TOPIC, name, LITERAL, f"User:{USER}", "*", operation, ALLOW))


def change(topics: Topics, request: CreateAclsRequest | DeleteAclsRequest) -> None:
    async def do(admin: AIOKafkaAdminClient) -> None:
        answer = (await admin._client.send(topics.broker.node, request)).to_object()
        (row,) = next(field for field in answer.values() if field)
        assert row["error_code"] == 0

    topics.administer(do)
    time.sleep(0.5)  # it reaches the broker by way of the controller


@pytest.fixture
def guarded(_start_kafka: Callable[..., KafkaBroker]) -> Iterator[Topics]:
    """Topics of a broker of this test's own, on which `USER` may only do what is granted."""
    broker = _start_kafka(secured=True, options=GUARDED)
    yield Topics(broker)
    broker.kill()


def test_what_is_forbidden_is_said_and_not_taken_for_gone(guarded: Topics, unique: str) -> None:
    guarded.make(unique)
    guarded.produce(unique, numbered(10))
    secret = {"mechanism": "PLAIN", "user": USER, "password": SecretStr(PASSWORD)}
    stream = reader(guarded.broker.locked, security="SASL_PLAINTEXT", **secret)
    with pytest.raises(Rejected, match=r"forbids it to streams\.kafka\.user") as raised:
        stream.look(unique)
    assert not isinstance(raised.value, NotFound)
    grant(guarded, unique, DESCRIBE)
    look = stream.look(unique)
    assert look.end == {0: 10}
    assert stream.look(unique, {0: Reached(10, 99)}).replaced == {0: 0}, "who may look is told of leader epochs"
    with pytest.raises(Rejected, match="forbids"):
        stream.read(look.id, look.first, MANY, MB, 0)
    grant(guarded, unique, READ)
    assert len(stream.read(look.id, look.first, 5, MB, 0)[0].records) == 5
    revoke(guarded, unique, READ)
    revoke(guarded, unique, DESCRIBE)
    for _ in range(3):
        with pytest.raises(Rejected, match="forbids") as raised:
            stream.read(look.id, {0: 3}, MANY, MB, 0)
        assert not isinstance(raised.value, StreamGone)
    grant(guarded, unique, READ)
    assert stream.look(unique) == look, "who may read may look"
    assert len(stream.read(look.id, {0: 3}, MANY, MB, 0)[0].records) == 7
    stream.close()


def read_until(stream: KafkaStream, topic_id: str, at: dict[int, int], ends: dict[int, int]) -> dict[int, list[bytes]]:
    """The values up to some ends, over whatever happens to the brokers."""
    found: dict[int, list[bytes]] = {partition: [] for partition in ends}
    until = time.monotonic() + WITHIN_S
    while any(at[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < until, (at, ends)
        try:
            came = stream.read(topic_id, {partition: at[partition] for partition in ends}, 20, MB, 100)
        except Retryable:
            time.sleep(0.2)
            continue
        for partition, read in came.items():
            found[partition] += [value or b"" for value in values(read.records)]
            at[partition] = read.next
    return found


def test_a_broker_dies_and_what_the_others_have_is_read(kafka_cluster: list[KafkaBroker], unique: str) -> None:
    first, second, _ = kafka_cluster
    topics = Topics(first)
    kept, scattered = f"{unique}kept", f"{unique}scattered"
    topics.make(kept, partitions=6, replicas=3)
    topics.make(scattered, partitions=6)
    for name in (kept, scattered):
        topics.produce(name, [sent for partition in range(6) for sent in numbered(100, partition)])
    stream = reader(",".join(broker.bootstrap for broker in kafka_cluster), timeout_s=4.0)
    looks = {name: stream.look(name) for name in (kept, scattered)}
    assert looks[kept].end == looks[scattered].end == dict.fromkeys(range(6), 100)
    at = {
        name: {p: read.next for p, read in stream.read(look.id, look.first, 10, MB, 0).items()}
        for name, look in looks.items()
    }
    assert set(at[kept].values()) == set(at[scattered].values()) == {10}

    second.kill()
    wanted = {p: [b"%d" % n for n in range(10, 100)] for p in range(6)}
    assert read_until(stream, looks[kept].id, at[kept], dict(looks[kept].end)) == wanted
    hidden = set(wanted) - reachable(stream, looks[scattered].id)
    assert len(hidden) == 2, "each broker leads two"
    seen = stream.look(scattered)
    assert (seen.unseen, set(seen.end)) == (hidden, set(wanted) - hidden)
    wait_until(lambda: stream.look(kept) == looks[kept], WITHIN_S, "others lead what has replicas")
    there = {p: 100 for p in wanted if p not in hidden}
    assert read_until(stream, looks[scattered].id, at[scattered], there) == {p: wanted[p] for p in there}

    quiet = reader(",".join(broker.bootstrap for broker in kafka_cluster), timeout_s=4.0)  # with nothing read ahead
    began = time.monotonic()
    for _ in range(3):
        assert quiet.read(looks[scattered].id, at[scattered], MANY, MB, 300) == {}, "the others wait for records"
    assert time.monotonic() - began > 0.8
    topics.produce(scattered, [sent for partition in there for sent in numbered(1, partition, first=100)])
    late = quiet.read(looks[scattered].id, at[scattered], MANY, MB, 1000)
    assert late
    assert late.keys() <= there.keys()
    quiet.close()
    second.start()
    assert read_until(stream, looks[scattered].id, at[scattered], dict.fromkeys(hidden, 100)) == {
        p: wanted[p] for p in hidden
    }
    stream.close()


def test_a_tail_that_an_unclean_election_lost_is_told_though_it_has_grown_again(
    kafka_cluster: list[KafkaBroker], unique: str
) -> None:
    """A replica that was away while records came leads, since the one that has them is away then."""
    first, second, third = kafka_cluster
    topics = Topics(first)
    where = {0: [second.node, third.node]}
    config = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    topics.administer(
        lambda admin: admin.create_topics([NewTopic(unique, -1, -1, replica_assignments=where, topic_configs=config)])
    )
    stream = reader(first.bootstrap, timeout_s=4.0)
    topics.produce(unique, numbered(6))
    third.kill()
    topics.produce(unique, numbered(4, first=6))
    look = stream.look(unique)
    wait_until(lambda: stream.look(unique).end == {0: 10}, WITHIN_S, "one replica is enough")
    read = stream.read(look.id, {0: 0}, MANY, MB, 1000)[0]
    assert read.next == 10
    second.kill()
    third.start()
    wait_until(lambda: stream.look(unique).end == {0: 6}, WITHIN_S, "the other one leads")
    topics.produce(unique, numbered(20, first=100))
    at = {0: Reached(10, read.leader_epoch)}
    wait_until(lambda: stream.look(unique, at).end == {0: 26}, WITHIN_S)
    assert stream.look(unique, at).replaced == {0: 6}

    def again() -> StreamRead:
        return stream.read(look.id, {0: 10}, MANY, MB, 0, {0: read.leader_epoch})[0]

    wait_until(lambda: again().failed is not None, WITHIN_S, "it asks the one that leads now")
    lost = again().failed
    assert isinstance(lost, OffsetLost)
    assert lost.replaced == 6
    stream.close()


def reachable(stream: KafkaStream, topic_id: str) -> set[int]:
    """The partitions of six that answer while some do not, as one reading of all of them sees it; from the start."""
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            found = set(stream.read(topic_id, dict.fromkeys(range(6), 0), 1, MB, 0))
        except Retryable:
            found = set()
        if len(found) >= 4 or time.monotonic() > until:
            return found
        time.sleep(0.2)
