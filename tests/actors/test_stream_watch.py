"""What streams wait for, as their notes say it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from actors.stream_watch import SLOWED, StreamWatch
from cluster.stores.control import ControlStore
from cluster.stores.control_streams import Read, partition_lease
from cluster.stores.kafka_stream_records import TopicLook
from cluster.streams.model import StreamSpec


def test_what_many_partitions_wait_for_is_said_once(control: ControlStore) -> None:
    found = TopicLook("t", "1d", {0: 0, 1: 0, 2: 0}, {0: 5, 1: 5, 2: 5})
    watch = StreamWatch(control, lambda *_: found, lambda parts: [], lambda *_: {})
    control.sources.register("acme", "feed", 0.0)
    control.streams.add(StreamSpec("feed", ("acme",), "t"), 0.0)
    watch.turn()
    for partition, note in enumerate(["the registry is away", "the registry is away", "a batch is damaged"]):
        token = control.leases.acquire(partition_lease("feed", partition), "w", 60.0, 0.0)
        control.streams.tell_partition("feed", partition, token, note)
    watch.turn()
    assert control.streams.get("feed").note == "the registry is away; a batch is damaged"


def test_the_streams_of_slowed_tenants_share_their_cap_by_what_waits_in_them_and_say_so(control: ControlStore) -> None:
    topics = {"a": 300, "b": 100, "other": 5}
    asked: list[dict[str, int]] = []
    waiting: list[dict[str, int]] = []
    given: dict[str, dict[str, float]] = {}

    def pace(read: Mapping[str, int], unread: Mapping[str, int]) -> dict[str, float]:
        asked.append(dict(read))
        waiting.append(dict(unread))
        return {"acme": 1_000.0}

    def assign(worker: str, shares: Mapping[str, Collection[int]], caps: Mapping[str, float]) -> dict[str, str]:
        given[worker] = dict(caps)
        return {}

    def look(topic: str, _: object) -> TopicLook:
        return TopicLook(topic, topic.encode().hex(), {0: 0, 1: 0}, {0: topics[topic], 1: 0})

    watch = StreamWatch(control, look, lambda parts: ["w0", "w1"], assign, pace=pace)
    for topic, tenant in (("a", "acme"), ("b", "acme"), ("other", "globex")):
        control.sources.register(tenant, topic, 0.0)
        control.streams.add(StreamSpec(topic, (tenant,), topic), 0.0)
    watch.turn()
    watch.turn()
    assert asked[-1] == {"acme": 0, "globex": 0}
    assert waiting[-1] == {"acme": 400, "globex": 5}
    total = {name: sum(caps.get(name, 0.0) for caps in given.values()) for name in topics}
    assert total == {"a": pytest.approx(100 + 800 * 302 / 404), "b": pytest.approx(100 + 800 * 102 / 404), "other": 0}
    first = [caps.get("a", 0.0) for caps in given.values()]
    assert max(first) > 5 * min(first), "what waits is in one partition"
    assert SLOWED in control.streams.get("a").note
    assert control.streams.get("other").note == ""


def test_a_paused_streams_records_count_as_read_so_that_to_resume_it_is_no_burst(control: ControlStore) -> None:
    asked: list[dict[str, int]] = []

    def pace(read: Mapping[str, int], unread: Mapping[str, int]) -> dict[str, float]:
        asked.append(dict(read))
        return {}

    found = TopicLook("t", "1d", {0: 1_000_000}, {0: 1_000_005})
    watch = StreamWatch(control, lambda *_: found, lambda parts: [], lambda *_: {}, pace=pace)
    control.sources.register("acme", "feed", 0.0)
    control.streams.add(StreamSpec("feed", ("acme",), "t"), 0.0)
    watch.turn()
    token = control.leases.acquire(partition_lease("feed", 0), "w", 60.0, 0.0)
    (part,) = control.streams.partitions("feed")
    control.streams.commit("feed", Read(0, token, part.epoch, part.offset, part.offset + 5, acked=4, dead=1))
    watch.turn()
    control.streams.set_state("feed", "paused")
    watch.turn()
    control.streams.set_state("feed", "active")
    watch.turn()
    assert asked == [{"acme": 0}, {"acme": 5}, {"acme": 5}, {"acme": 5}]
