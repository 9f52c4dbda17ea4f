"""What streams wait for, as their notes say it."""

from __future__ import annotations

from actors.stream_watch import StreamWatch
from cluster.stores.control import ControlStore
from cluster.stores.control_streams import partition_lease
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
