"""Partitions of a stream that are not as the others are: damaged, unreadable, with a tail that was lost, or added."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.dead_letters import Replay
from actors.stream_watch import PARTIAL
from cluster.config import RecordLimits, Settings
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.redis_log import RedisEventLog
from cluster.telemetry import metrics
from tests.faults.harness import wait_until
from tests.kafka_batches import MB, change, segment, with_codec, with_text
from tests.kafka_broker import KafkaBroker
from tests.kafka_topics import Sent, Topics
from tests.stream_feed import Feed, TopicFeed, ids, shown

pytestmark = [pytest.mark.services, pytest.mark.production]
Person = Callable[..., dict[str, Any]]
GOOD, DAMAGED, UNKNOWN, LARGE, HEADER = range(5)


@pytest.fixture
def mortal(mortal_kafka: KafkaBroker) -> Topics:
    """Topics of a broker that may be stopped."""
    if not mortal_kafka.running:
        mortal_kafka.start()
    return Topics(mortal_kafka)


@pytest.fixture
def mortal_feed(
    mortal: Topics, control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings, unique: str
) -> Iterator[Feed]:
    """A stream of a topic of that broker, which is yet to be made; a batch of it may have a MB."""
    made = Feed(mortal.broker.bootstrap, unique, control, event_log, ingest_settings, batch_bytes=MB)
    yield made
    made.close()


def sent(event: dict[str, Any], partition: int, **named: Any) -> Sent:
    return Sent(json.dumps(event).encode(), partition, b"k", **named)


def notes(feed: Feed) -> list[str]:
    feed.watch.turn()
    return [part.note for part in feed.parts()]


def stopped(feed: Feed, partition: int) -> float | None:
    labels = {"stream": feed.name, "partition": str(partition)}
    return metrics.REGISTRY.get_sample_value("intelgraph_stream_stopped", labels)


def test_a_partition_that_cannot_be_read_stops_alone_and_goes_on_when_it_can(
    mortal: Topics, mortal_feed: Feed, unique: str, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed = mortal_feed
    mortal.make(unique, partitions=5)
    for partition in range(5):
        mortal.produce(unique, [sent(person(f"a{partition}"), partition, headers=[("name", b"1")])])
    mortal.produce(unique, [Sent(bytes(3 * MB), LARGE)], compression_type="gzip", max_request_size=8 * MB)
    mortal.produce(unique, [sent(person(f"b{partition}"), partition) for partition in range(5)])
    mortal.broker.stop()
    files = {partition: segment(mortal.broker, unique, partition) for partition in range(5)}
    before = {
        DAMAGED: change(files[DAMAGED], with_text(b"name", b"same"), seal=False),
        UNKNOWN: change(files[UNKNOWN], with_codec(6)),
        HEADER: change(files[HEADER], with_text(b"name", b"\xff\xff\xff\xff")),
    }
    mortal.broker.start()
    feed.add()
    feed.start("w")
    wait_until(lambda: [bool(note) for note in notes(feed)] == [False, True, True, True, False], 20.0)
    wait_until(lambda: set(ids(logged())) == {"a0", "b0", "a3", "b4"}, 20.0)
    told = notes(feed)
    assert "partition 1: the batch at offset 0 is damaged" in told[DAMAGED]
    assert "partition 2, offset 0: compressed with codec 6, which is not known here" in told[UNKNOWN]
    assert "partition 3, offset 1: its batch takes more than 1,048,576 bytes" in told[LARGE]
    assert "streams.batch_bytes" in told[LARGE]
    stream = feed.control.streams.get("feed")
    assert (stream.state, all(note in stream.note for note in told)) == ("active", True)
    assert [stopped(feed, partition) for partition in range(5)] == [0, 1, 1, 1, 0]
    (letter,) = feed.control.dead_letters.list("acme")
    assert (letter.position, letter.error_class, letter.partition) == ((0,), "decode", str(HEADER))
    assert json.loads(letter.payload) == person("a4")
    mortal.produce(unique, [sent(person("c0"), GOOD)])
    wait_until(lambda: ids(logged())["c0"] == 1, 20.0, "the others are read on")

    mortal.broker.stop()
    for partition in (DAMAGED, UNKNOWN):
        files[partition].write_bytes(before[partition])
    mortal.broker.start()
    feed.control.streams.set_state("feed", "active")
    wait_until(lambda: [bool(note) for note in notes(feed)] == [False, False, False, True, False], 20.0)
    wait_until(lambda: set(ids(logged())) == {"a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3", "b4"}, 20.0)
    assert "the next batch begins at offset 2" in notes(feed)[LARGE]
    feed.control.streams.skip_to("feed", LARGE, 2)
    wait_until(lambda: ids(logged())["b3"] == 1, 20.0, "what cannot be read is given up")
    assert not any(notes(feed))
    assert all(count == 1 for count in ids(logged()).values())


def test_a_tail_that_was_lost_and_has_grown_again_is_noticed(
    mortal: Topics, mortal_feed: Feed, unique: str, folded: Callable[[], Fold], person: Person, tmp_path: Path
) -> None:
    """A backup that was taken while the broker ran is restored, and more is written than was lost."""
    feed = mortal_feed
    mortal.make(unique)
    mortal.produce(unique, [sent(person(f"a{n}", v=n), 0) for n in range(6)])
    folder = segment(mortal.broker, unique).parent
    shutil.copytree(folder, tmp_path / "backup", ignore=shutil.ignore_patterns("*.*index"))
    mortal.produce(unique, [sent(person("lost", v=1), 0), sent(person("x", v=1), 0), sent(person("x", v=2), 0)])
    feed.add()
    feed.start("w")
    feed.wait()
    feed.stop()
    mortal.broker.stop()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    mortal.broker.start()
    mortal.produce(unique, [sent(person("x", v=3), 0), *(sent(person(f"b{n}", v=n), 0) for n in range(9))])
    feed.start("w")
    wait_until(lambda: "b8" in shown(folded()) and feed.drained(), 20.0)
    wanted = {f"a{n}": n for n in range(6)} | {"lost": 1, "x": 3} | {f"b{n}": n for n in range(9)}
    assert shown(folded()) == {id: f'{{"v":{v}}}' for id, v in wanted.items()}
    told = feed.control.audit.list("acme", action="stream.changed")
    assert "was read to offset 9, and has other records now from 6 on" in told[-1].detail["note"]
    assert len(told) == 1


def test_an_older_position_does_not_win_through_a_partition_that_was_added(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person
) -> None:
    feed.topic.send([person("a", v=50, position=50), person("b", v=10, position=10)], 0)
    feed.add()
    feed.start("w")
    feed.wait()
    feed.topic.grow(3)
    feed.topic.send([person("a", v=40, position=40), person("b", v=20, position=20)], 2)
    wait_until(lambda: feed.drained() and len(feed.parts()) == 3, 20.0)
    assert shown(folded()) == {"a": '{"v":50}', "b": '{"v":20}'}
    feed.topic.send([person("a", v=60, position=60)], 1)
    feed.wait()
    assert shown(folded())["a"] == '{"v":60}'


def test_a_bad_record_with_a_position_keeps_its_place_when_it_is_replayed(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person, event_log: RedisEventLog, ingest_settings: Settings
) -> None:
    feed.settings = feed.settings.model_copy(update={"records": RecordLimits(property_names_per_tenant=1)})
    feed.topic.send([person("a", v=50, position=50), person("b", v=10, position=10)], 0)
    feed.add()
    feed.start("w")
    feed.wait()
    feed.topic.grow(3)
    feed.topic.send([person("a", w=40, position=40), person("b", w=20, position=20)], 2)
    wait_until(lambda: feed.drained() and len(feed.parts()) == 3, 20.0)
    assert len(feed.control.dead_letters.list("acme")) == 2
    assert Replay(feed.control, event_log, ingest_settings).replay("acme", "ann").count("replayed") == 2
    assert shown(folded()) == {"a": '{"v":50}', "b": '{"w":20}'}


def test_updates_without_the_row_before_are_told_once_and_until_they_come_with_it(feed: TopicFeed) -> None:
    row = {"tenant": "acme", "case": "c", "type": "Person", "id": "a", "props": "{}"}

    def update(lsn: int, before: dict[str, Any] | None) -> dict[str, Any]:
        source = {"table": "entities", "sequence": f'["{lsn}","{lsn}"]', "snapshot": "false"}
        return {"op": "u", "before": before, "after": row, "source": source}

    def note() -> str:
        feed.watch.turn()
        return feed.control.streams.get("feed").note

    feed.topic.send([update(1, None), update(2, None)])
    feed.add(format="debezium", table="entities")
    feed.start("w")
    wait_until(lambda: note() == PARTIAL, 20.0)
    feed.topic.send([update(3, None)])
    feed.wait()
    assert note() == PARTIAL
    assert [told.detail["note"] for told in feed.control.audit.list("acme", action="stream.changed")] == [PARTIAL]
    feed.topic.send([update(4, row)])
    wait_until(lambda: note() == "", 20.0)
    assert not feed.control.dead_letters.list("acme")
