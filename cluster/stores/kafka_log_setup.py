"""Creating and checking the log's topics, at opening: see `cluster.stores.kafka_log`.

    <prefix>.log-meta            one partition: what each generation is; its first record counts
    <prefix>.log-<generation>    the entries of that generation

The log's name is the id that the cluster drew for the topic of entries. So whoever makes that topic, all openers read
the same name, and a topic that was made again is known as another.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.record.memory_records import MemoryRecords

from cluster.config import LogSettings
from cluster.config_kafka import KafkaSettings
from cluster.errors import Conflict, Corrupt, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.kafka_append import KafkaAppender
from cluster.stores.kafka_client import FIRST, NEXT, KafkaClient
from cluster.stores.kafka_entry import Message
from cluster.stores.kafka_errors import MOVED, WHAT
from cluster.stores.kafka_fetch import fetch
from cluster.stores.kafka_log_generations import KEPT_OUT, LET_IN, Known, Said, filling, known, opening, parsed
from cluster.stores.kafka_topic import CurrentTopic, Topic, known_topic
from cluster.stores.log import Generation, LogIdentity, all_partitions, check_number

_FIRST_GENERATION = 1
_META_PARTITION = 0
_META_BYTES = 1 << 20
_POLL_S = 0.1
_MIB = 1 << 20
_SEGMENTS = 16
"""Files that a full log has of each partition: a trim frees whole files only."""
_FILE_SIZE = "segment.bytes"


class Opened(NamedTuple):
    """What is known of a log, its topic of entries, and the one that says what is known."""

    known: Known
    topic: Topic
    meta: Topic


def batch_bytes(settings: LogSettings) -> int:
    """The largest batch on the wire, bytes: an entry that does not compress, with its headers."""
    return settings.entry_bytes + settings.entry_bytes // 128 + 4096


def topic_config(settings: LogSettings) -> dict[str, str]:
    """Settings of the topic of entries."""
    return {
        **_kept_whole(settings.kafka),
        "max.message.bytes": str(batch_bytes(settings)),
        _FILE_SIZE: str(_file_bytes(settings, settings.partitions)),
        "message.timestamp.type": "LogAppendTime",  # a broker refuses the times of a clock that is far off
    }


def _file_bytes(settings: LogSettings, partitions: int) -> int:
    return min(max(settings.max_bytes // (_SEGMENTS * partitions), 2 * batch_bytes(settings), _MIB), 1 << 30)


def _kept_whole(kafka: KafkaSettings) -> dict[str, str]:
    kept = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "min.insync.replicas": str(kafka.min_in_sync),
        "unclean.leader.election.enable": "false",
    }
    if kafka.replication_factor == 1:
        kept["flush.messages"] = "1"  # with no other replica, only the disk makes an entry durable
    return kept


async def open_topics(client: KafkaClient, settings: LogSettings, mending: bool = False) -> Opened:
    """The log; creates what there is not yet of it. Safe to call from several processes at once.

    Args:
        mending: by who opens a new generation, and fills it.

    Raises:
        Rejected: a topic is not fit for a log, or the log has another number of partitions.
        Corrupt: the log's topic is gone, or another has its name.
        Unavailable: the topics that were made do not get leaders in time, or a new generation is being filled.
    """
    kafka = settings.kafka
    meta = await _made(client, f"{kafka.topic_prefix}.log-meta", 1, _kept_whole(kafka), settings)
    found = await read_known(client, meta, settings.timeout_s)
    if found is None:
        name = f"{kafka.topic_prefix}.log-{_FIRST_GENERATION}"
        topic = await _made(client, name, settings.partitions, topic_config(settings), settings)
        said = {"name": topic.id.hex(), "generation": _FIRST_GENERATION, "partitions": len(topic.leaders)}
        await say(client, meta, said, settings)
        found = await read_known(client, meta, settings.timeout_s)
        if found is None:
            raise Corrupt(f"{WHAT} loses what is written to {meta.name}; see the broker's log")
    if found.unfinished and not mending:
        raise Unavailable(f"a new generation of {WHAT} is being opened: `intelgraph up` does that", 1.0)
    topic = await known_topic(client, bytes.fromhex(found.identity.name), settings.timeout_s)
    count = all_partitions(found.identity, found.generations)
    topic = await _with(client, topic, count, settings, led=mending)
    if not mending:  # who opens a generation may find partitions for it, of one that was killed before it was open
        _check_partitions(count, topic)
        check_number(found.identity.partitions, settings.partitions)
    if mending and not found.unfinished and KEPT_OUT.items() <= (await client.topic_config(topic.name)).items():
        await client.alter_topic(topic, LET_IN)  # who was killed before it could open one has left it so
    await _check_fit(client, topic, topic_config(settings), settings, not found.unfinished)
    await _check_fit(client, meta, _kept_whole(kafka), settings)
    return Opened(found, topic, meta)


async def _made(
    client: KafkaClient, name: str, partitions: int, config: Mapping[str, str], settings: LogSettings
) -> Topic:
    """The topic, made where there is none, with a leader for each partition."""
    until = time.monotonic() + settings.timeout_s
    topic = await client.topic(name=name)
    if topic is None:
        await client.create_topic(name, partitions, settings.kafka.replication_factor, config)
    while topic is None or min(topic.leaders.values()) < 0:
        if time.monotonic() > until:
            raise Unavailable(f"{WHAT}: topic {name} has no leader yet; see that the brokers run")
        await asyncio.sleep(_POLL_S)
        topic = await client.topic(name=name)
    return topic


async def _with(client: KafkaClient, topic: Topic, partitions: int, settings: LogSettings, *, led: bool) -> Topic:
    """The topic, as soon as the broker that is asked knows so many of its partitions: news of them takes a moment.

    Args:
        led: wait until each has a leader, too, that knows that it is one.
    """
    until = time.monotonic() + settings.timeout_s
    while len(topic.leaders) < partitions or (led and not await _is_led(client, topic)):
        if time.monotonic() > until:
            raise Unavailable(f"{WHAT}: partitions of {topic.name} have no leader yet; see that the brokers run")
        await asyncio.sleep(_POLL_S)
        topic = await known_topic(client, topic.id, settings.timeout_s)
    return topic


async def _is_led(client: KafkaClient, topic: Topic) -> bool:
    if min(topic.leaders.values()) < 0:
        return False
    try:
        await client.offsets(topic, topic.leaders, NEXT)
    except NotLeaderForPartitionError:
        return False
    return True


async def read_known(client: KafkaClient, meta: Topic, timeout_s: float) -> Known | None:
    """What the topic says of the log; None where it says nothing yet."""
    end = (await client.offsets(meta, [_META_PARTITION], NEXT))[_META_PARTITION]
    at = (await client.offsets(meta, [_META_PARTITION], FIRST))[_META_PARTITION]
    found: list[Said] = []
    current = CurrentTopic(client, meta, timeout_s)
    while at < end:
        part = (await fetch(client, current, {_META_PARTITION: at}, _META_BYTES, 0)).get(_META_PARTITION)
        if part is None or part.code in MOVED:
            raise Unavailable(f"{WHAT}: topic {meta.name} is not ready; try again shortly")
        batches = MemoryRecords(part.records)
        while batches.has_next():
            for record in batches.next_batch():
                found.append(parsed(record.value, meta.name))
                at = record.offset + 1
    return known(found)


async def say(client: KafkaClient, meta: Topic, said: Mapping[str, object], settings: LogSettings) -> None:
    """Adds a record to the topic that says what is known."""
    current = CurrentTopic(client, meta, settings.timeout_s)
    appender = KafkaAppender(client, current, "none", _META_BYTES, settings.timeout_s)
    try:
        await appender.append({_META_PARTITION: [Message(json.dumps(said).encode(), [])]})
    except OutcomeUnknown as error:  # whoever opens the log next reads what came of it
        raise Unavailable(f"{WHAT} is slow to answer; open it again") from error


def _check_partitions(count: int, topic: Topic) -> None:
    if len(topic.leaders) != count:
        more = len(topic.leaders) > count
        raise Corrupt(
            f"{WHAT} has {count} partitions, and its topic {topic.name} has {len(topic.leaders)}."
            + (" If `intelgraph log repartition` was said, a start was cut off: `intelgraph up` goes on. Else somebody"
               if more else " Somebody")
            + " else changed it; entries lie by the first number: restore the topic"
        )  # fmt: skip


async def _check_fit(
    client: KafkaClient, topic: Topic, wanted: Mapping[str, str], settings: LogSettings, filled: bool = True
) -> None:
    """Nothing if the topic keeps what it takes, as durably as it is configured to.

    Raises:
        Rejected: it does not; the message says what to change.
    """
    factor = settings.kafka.replication_factor
    fewest = min(len(brokers) for brokers in topic.replicas.values())
    if fewest < factor:
        raise Rejected(
            f"{WHAT}: topic {topic.name} has partitions with {fewest} replicas, and log.kafka.replication_factor is"
            f" {factor}: add replicas (kafka-reassign-partitions), or set it to {fewest}"
        )
    has = await client.topic_config(topic.name)
    unlike = {_FILE_SIZE, *KEPT_OUT} if not filled else {_FILE_SIZE}
    at_least = {"min.insync.replicas", "max.message.bytes"}
    for name, want in wanted.items():
        value = has.get(name, "")
        fits = value == want or (name in at_least and value.isdigit() and int(value) >= int(want))
        if name not in unlike and not fits:  # any size of files will do
            raise Rejected(
                f"{WHAT}: topic {topic.name} has {name}={value}, and the log needs {want}: set it (kafka-configs"
                f" --alter --topic {topic.name} --add-config {name}={want})"
            )


async def begin(
    client: KafkaClient, topic: Topic, meta: Topic, settings: LogSettings, identity: LogIdentity, new: Generation,
    ends: Mapping[int, int],
) -> tuple[Known, Topic]:  # fmt: skip
    """Opens a generation, with partitions of the topic for it; see `EventLog.begin_generation`."""
    await client.alter_topic(topic, KEPT_OUT)
    now = await read_known(client, meta, settings.timeout_s)
    found_ends = {**dict.fromkeys(ends, 0), **await client.offsets(topic, topic.leaders, NEXT)}
    if now is None or now.identity != identity or found_ends != ends:
        if now is None or not now.unfinished:
            await client.alter_topic(topic, LET_IN)
        raise Conflict(f"{WHAT} has another generation, or other ends, than a moment ago: look again", 0.1)
    if len(topic.leaders) < len(ends):
        await client.add_partitions(topic.name, len(ends))
        topic = await _with(client, topic, len(ends), settings, led=True)
    said, drawn = opening(identity, new)
    await say(client, meta, said, settings)
    found = await read_known(client, meta, settings.timeout_s)
    if found is None or found.drawn != drawn:
        raise Conflict(f"another generation of {WHAT} was opened just now", 0.1)
    return found, topic


async def finish(
    client: KafkaClient, topic: Topic, meta: Topic, settings: LogSettings, identity: LogIdentity
) -> None:  # fmt: skip
    """The newest generation is filled; see `EventLog.finish_generation`. Safe to call twice."""
    has, most = (await client.topic_config(topic.name)).get(_FILE_SIZE, ""), _file_bytes(settings, len(topic.leaders))
    smaller = {_FILE_SIZE: str(most)} if has.isdigit() and int(has) > most else {}
    await client.alter_topic(topic, {**LET_IN, **smaller})
    await say(client, meta, filling(identity), settings)
