"""A topic on a real broker into a real log: each record once in effect, whatever happens to topic or reader."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from actors.ahead import ENOUGH, Ahead
from cluster.errors import Unavailable
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control_streams import partition_lease
from cluster.stores.log import EventLog
from tests.faults.harness import wait_until
from tests.stream_feed import TopicFeed, ids, shown

pytestmark = [pytest.mark.services, pytest.mark.production]
Person = Callable[..., dict[str, Any]]


def test_a_topic_is_read_to_its_end_and_on(feed: TopicFeed, logged: Callable[[], list[Record]], person: Person) -> None:
    feed.topic.send([person(f"a{n}", n=n) for n in range(40)], 0)
    feed.topic.send([person(f"b{n}", n=n) for n in range(15)], 1)
    feed.add()
    feed.start("w")
    feed.wait()
    assert ids(logged()) == Counter({f"a{n}": 1 for n in range(40)} | {f"b{n}": 1 for n in range(15)})
    feed.topic.send([person("late", n=1)], 1)
    feed.wait()
    assert ids(logged())["late"] == 1
    assert [(part.offset, part.acked, part.dead) for part in feed.parts()] == [(40, 40, 0), (16, 16, 0)]
    assert feed.status().state == "running"


def test_entries_tell_when_their_records_were_polled(feed: TopicFeed, event_log: EventLog, person: Person) -> None:
    feed.topic.send([person("a")])
    began = time.time()
    feed.add()
    feed.start("w")
    feed.wait()
    told = [entry for partition in event_log.ends() for entry in event_log.read(partition, 0, 10, 1 << 20)]
    assert len(told) == 1
    assert began * 1e3 - 1 <= told[0].polled_ms <= told[0].appended_ms


def test_the_later_record_of_a_key_counts(feed: TopicFeed, folded: Callable[[], Fold], person: Person) -> None:
    said = [person("a", v=1), person("a", v=2), person("a", op="delete"), person("b", v=1), person("b", v=3)]
    feed.topic.send(said)
    feed.add()
    feed.start("w")
    feed.wait()
    visible = shown(folded())
    assert visible == {"b": '{"v":3}'}


def test_a_bad_record_is_a_dead_letter_of_the_tenant_that_it_names_and_the_rest_flows(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    bad = {**person("x", tenant="b"), "type": "no type"}
    foreign = person("y", tenant="stranger")
    feed.topic.send([b"no json", person("ok", tenant="a"), bad, None, foreign, person("last", tenant="b")])
    feed.add("a", "b")
    feed.start("w")
    feed.wait()
    assert ids(logged()) == Counter(["ok", "last"])
    letters = {tenant: feed.control.dead_letters.list(tenant) for tenant in ("a", "b", "stranger")}
    assert [(x.position, x.error_class) for x in letters["a"]] == [((0,), "decode"), ((3,), "schema"), ((4,), "policy")]
    assert [(x.position, x.type, x.partition) for x in letters["b"]] == [((2,), "no type", "0")]
    assert not letters["stranger"]
    assert letters["a"][0].headers == {"topic": feed.topic.name, "partition": 0, "offset": 0, "holds": "event"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_dies_anywhere_leaves_nothing_out_and_nothing_twice_in_effect(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person
) -> None:
    feed.topic.send([person(f"a{n}", n=n) for n in range(30)])
    feed.add()
    for step in ("before append", "after append", "before commit", "committed"):
        died = threading.Event()

        def die(at: str, step: str = step, died: threading.Event = died) -> None:
            if at == step:
                died.set()
                raise SystemExit

        feed.start("w", failpoint=die)
        feed.watch.turn()
        assert died.wait(10.0)
        feed.stop("w")
    feed.start("w")
    feed.wait()
    assert shown(folded()) == {f"a{n}": f'{{"n":{n}}}' for n in range(30)}
    assert sum(part.acked for part in feed.parts()) == 30


def test_workers_share_the_partitions_and_take_over_from_one_that_ends(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed.add()
    feed.start("w1", "w2")
    wait_until(lambda: len(feed.status("w1").partitions) == len(feed.status("w2").partitions) == 1)
    feed.topic.send([person(f"a{n}") for n in range(20)], 0)
    feed.topic.send([person(f"b{n}") for n in range(20)], 1)
    feed.wait()
    feed.stop("w1")
    feed.watch.turn()
    feed.topic.send([person("c")], 0)
    feed.topic.send([person("d")], 1)
    feed.wait()
    assert set(ids(logged()).values()) == {1}
    assert len(ids(logged())) == 42


def test_a_worker_that_lost_its_lease_writes_nothing_down(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person
) -> None:
    """It stops before its commit, past its lease; another reads on; then it goes on."""
    feed.topic.send([person(f"a{n}") for n in range(5)])
    feed.add()
    stands, go_on = threading.Event(), threading.Event()

    def stand_still(at: str) -> None:
        if at == "before commit" and not go_on.is_set():
            stands.set()
            assert go_on.wait(30.0)

    feed.start("zombie", failpoint=stand_still)
    assert stands.wait(10.0)
    feed.workers.remove("zombie")
    feed.start("w")
    feed.topic.send([person(f"b{n}") for n in range(5)])
    feed.wait()
    go_on.set()
    wait_until(lambda: feed.status("zombie").partitions == ())
    assert sum(part.acked for part in feed.parts()) == 10
    assert len(shown(folded())) == 10


def test_a_paused_stream_is_read_on_where_it_was(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed.topic.send([person("a")])
    feed.add()
    feed.start("w")
    feed.wait()
    feed.control.streams.set_state("feed", "paused")
    wait_until(lambda: feed.status().state == "paused")
    feed.topic.send([person("b")])
    assert ids(logged()) == Counter("a")
    feed.control.streams.set_state("feed", "active")
    feed.wait()
    assert ids(logged()) == Counter("ab")


def test_a_stream_that_is_removed_and_added_again_under_its_reader_is_read_again(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed.topic.send([person("a")])
    feed.add()
    feed.start("w")
    feed.wait()
    feed.control.streams.remove("feed")
    feed.add()
    feed.wait()
    assert set(ids(logged())) == {"a"}
    assert [part.acked for part in feed.parts()] == [1, 0]


def test_absurd_positions_are_dead_letters_and_hold_nothing_up(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    row = {"tenant": "acme", "case": "c", "type": "Person", "id": "ok", "props": "{}"}

    def envelope(op: str, lsn: int, snapshot: str = "false") -> dict[str, Any]:
        sequence = f'[null,"{lsn}"]' if snapshot == "first" else f'["{lsn}","{lsn}"]'
        source = {"table": "entities", "sequence": sequence, "snapshot": snapshot}
        return {"op": op, "before": None, "after": None if op == "t" else row, "source": source}

    feed.topic.send([envelope("t", -1), envelope("t", 2**70), envelope("r", 2**70, "first"), envelope("c", 5)])
    feed.add(format="debezium", table="entities")
    feed.start("w")
    feed.wait()
    assert ids(logged()) == Counter(["ok"])
    assert [letter.position for letter in feed.control.dead_letters.list("acme")] == [(0, 1), (1, 1), (2, 1)]


def test_a_topic_that_is_made_again_is_read_from_its_beginning_and_its_records_are_newer(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person
) -> None:
    feed.topic.send([person("a", v=n) for n in range(5)])
    feed.add()
    feed.start("w")
    feed.wait()
    feed.topic.delete()
    feed.topic.make(1)
    feed.topic.send([person("a", v=99)])
    wait_until(lambda: feed.drained() and len(feed.parts()) == 1, 20.0)
    assert shown(folded()) == {"a": '{"v":99}'}
    told = feed.control.audit.list("acme", action="stream.changed")
    assert "made again" in told[-1].detail["note"]


def test_partitions_that_are_added_are_read_and_what_moves_to_them_is_newer(
    feed: TopicFeed, folded: Callable[[], Fold], person: Person
) -> None:
    feed.topic.send([person("moved", v=n) for n in range(9)], 0)
    feed.add()
    feed.start("w")
    feed.wait()
    feed.topic.grow(3)
    feed.topic.send([person("moved", v=100)], 2)
    feed.topic.send([person("stays", v=1)], 0)
    wait_until(lambda: feed.drained() and len(feed.parts()) == 3, 20.0)
    assert shown(folded()) == {
        "moved": '{"v":100}', "stays": '{"v":1}',
    }  # fmt: skip
    assert len({part.epoch for part in feed.parts()}) == 1


def test_records_that_the_topic_removed_unread_stop_the_stream_until_they_are_given_up(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed.add()
    feed.start("w")
    feed.topic.send([person("a")])
    feed.wait()
    feed.stop("w")
    feed.topic.send([person(f"b{n}") for n in range(5)])
    feed.topic.trim(0, 4)
    feed.start("w")
    wait_until(lambda: bool(feed.watch.turn()) or feed.control.streams.get("feed").state == "stopped")
    assert "offsets 1 to 3 were removed" in feed.control.streams.get("feed").note
    assert ids(logged()) == Counter("a")
    feed.skip_removed()
    feed.wait()
    assert ids(logged()) == Counter(["a", "b3", "b4"])


def test_what_a_stream_waits_for_is_told_with_it_until_it_goes_on(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    def note() -> str:
        feed.watch.turn()
        return feed.control.streams.get("feed").note

    down = threading.Event()

    def no_log(at: str) -> None:
        if at == "before append" and down.is_set():
            raise Unavailable("the log is away")

    feed.add()
    feed.start("w", failpoint=no_log)
    down.set()
    feed.topic.send([person("a")])
    wait_until(lambda: note() == "the log is away")
    down.clear()
    feed.wait()
    assert ids(logged()) == Counter("a")
    wait_until(lambda: note() == "")
    feed.topic.delete()
    wait_until(lambda: "has no topic" in note())
    feed.topic.make(1)
    wait_until(lambda: note() == "")


def test_a_stream_with_a_cap_is_read_no_faster_and_to_its_end(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    feed.caps = {feed.name: 200.0}
    feed.topic.send([person(f"a{n}", n=n) for n in range(450)], 0)
    feed.add()
    began = time.monotonic()
    feed.start("w")
    feed.wait()
    assert time.monotonic() - began > 1.9, "100 each half second"
    feed.caps = {}
    assert ids(logged()) == Counter({f"a{n}": 1 for n in range(450)})


def test_a_cap_of_which_nobody_speaks_any_more_is_none(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    streams = feed.settings.streams.model_copy(update={"look_s": 0.05})
    ingest = feed.settings.ingest.model_copy(update={"batch_records": 100})
    feed.settings = feed.settings.model_copy(update={"streams": streams, "ingest": ingest})
    feed.caps = {feed.name: 1.0}
    feed.topic.send([person(f"a{n}", n=n) for n in range(2_000)], 0)
    feed.add()
    feed.start("w")
    wait_until(lambda: bool(feed.status().acked == 2_000), 10.0, "it rests a second after each of 20 with the cap")
    assert len(ids(logged())) == 2_000


def test_what_comes_in_a_moment_is_one_batch(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    streams = feed.settings.streams.model_copy(update={"interval_ms": 5_000})
    feed.settings = feed.settings.model_copy(update={"streams": streams})
    feed.add()
    feed.start("w")
    feed.topic.send([person("first", n=1)], 0)
    wait_until(lambda: bool(feed.status().acked == 1), 10.0, "it is read at once")
    feed.topic.send([person("second", n=1)], 0)
    feed.topic.send([person("third", n=1)], 0)
    wait_until(lambda: bool(feed.status().acked > 1), 10.0, "the next reading")
    assert feed.status().acked == 3
    assert ids(logged()) == Counter({"first": 1, "second": 1, "third": 1})


def test_nothing_is_read_while_all_shards_have_enough_before_them(
    feed: TopicFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    shards = feed.control.shards
    shards.register("s0", "unix:///s0", 0.0)
    shards.report_lag("s0", feed.settings.streams.ahead_records + 1, 1.5, 50.0)
    ticks = [100.0]
    feed.ahead = Ahead(shards.list, feed.settings.streams, lambda: 50.0, lambda: ticks[0])
    feed.topic.send([person(f"a{n}", n=n) for n in range(10)], 0)
    feed.add()
    feed.start("w")
    wait_until(lambda: bool(feed.status().state == "waiting"), 10.0, "the reader rests")
    feed.watch.turn()
    assert feed.control.streams.get(feed.name).note == ENOUGH
    held_s, lease_s = time.monotonic(), feed.settings.streams.lease_s
    wait_until(lambda: time.monotonic() > held_s + 1.5 * lease_s, 30.0)
    assert feed.status().partitions == (0, 1), "it keeps what it has"
    assert not logged()
    shards.report_lag("s0", feed.settings.streams.ahead_records, 1.5, 50.0)
    ticks[0] += 0.3
    feed.wait()
    assert len(ids(logged())) == 10
    wait_until(lambda: bool(feed.status().state == "running"), 10.0, "a topic that is read to its end waits for nobody")
    assert feed.ahead.reason, "other streams of its process may still"


@pytest.mark.parametrize("how", ["paused", "removed", "stopped"])
def test_a_reader_that_rests_lets_go_at_once(feed: TopicFeed, person: Person, how: str) -> None:
    shards = feed.control.shards
    shards.register("s0", "unix:///s0", 0.0)
    shards.report_lag("s0", feed.settings.streams.ahead_records + 1, 1.5, 50.0)
    feed.ahead = Ahead(shards.list, feed.settings.streams, lambda: 50.0, lambda: 100.0)
    feed.topic.send([person("a", n=1)], 0)
    feed.add()
    feed.start("w")
    wait_until(lambda: bool(feed.status().state == "waiting"), 10.0, "the reader rests")
    wait_until(lambda: bool(feed.status().partitions == (0, 1)), 10.0, "it holds both")
    status = feed.status()
    if how == "paused":
        feed.control.streams.set_state(feed.name, "paused")
    elif how == "removed":
        feed.control.streams.remove(feed.name)
    else:
        feed.stop("w")
        for partition in (0, 1):
            feed.control.leases.acquire(partition_lease(feed.name, partition), "another", 1.0, time.time())
        return
    wait_until(lambda: bool(status.partitions == ()), 5.0, how)
