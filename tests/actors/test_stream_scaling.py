"""Stream workers come with lag and go without it, on a real topic: each partition moves only when it is let go of."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from actors.stream_reader import StreamReader
from actors.stream_watch import StreamWatch
from actors.stream_workers import StreamWorkers, worker_name
from cluster.config import Settings
from cluster.config_scaling import ScalingSettings
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.redis_log import RedisEventLog
from cluster.streams.model import StreamPartition
from services.spec import Running
from tests.faults.harness import wait_until
from tests.kafka_topics import Topic
from tests.stream_feed import TopicFeed, ids, shown

pytestmark = [pytest.mark.services, pytest.mark.production]
Person = Callable[..., dict[str, Any]]
PARTITIONS, EACH = 4, 120
W0, W1 = worker_name(0), worker_name(1)
SCALING = ScalingSettings(
    up_lag_records=50, up_looks=2, up_pause_s=3.0, catch_up_s=0.1,
    down_lag_records=20, down_looks=3, down_pause_s=3.0,
)  # fmt: skip


class ScaledFeed(TopicFeed):
    """A feed that starts and ends its readers as they are wanted. A look takes `look_s`, a batch `pause_s`."""

    def __init__(self, topic: Topic, control: ControlStore, log: RedisEventLog, settings: Settings) -> None:
        super().__init__(topic, control, log, settings)
        self.settings = self.settings.model_copy(update={"state_dir": settings.state_dir})
        self.set(workers_max=PARTITIONS, scaling=SCALING, lease_s=60.0)
        self.seconds, self.look_s, self.pause_s, self.most = 0.0, 1.0, 0.0, 0
        self.held, self.go_on, self.dies = threading.Event(), threading.Event(), False
        self.holds_up = ""
        self.scaled = StreamWorkers(self.settings, self._statuses, self, time.time, lambda: self.seconds)
        self.watch = StreamWatch(control, self._kafka.look, self._look, self._assign)

    def set(self, **changes: Any) -> None:
        """Settings of streams, for readers that begin from now on."""
        streams = self.settings.streams.model_copy(update=changes)
        self.settings = self.settings.model_copy(update={"streams": streams})

    def _look(self, parts: Sequence[StreamPartition]) -> list[str]:
        self.seconds += self.look_s
        names = self.scaled.look(parts)
        wanted = self.scaled.wanted()
        for name in [name for name in self._readers if name not in wanted]:
            self.stop(name)
        for name in wanted:
            if name not in self._readers or not self._readers[name][1].is_alive():
                self._begin(name)
        self.most = max(self.most, len(names))
        return [name for name in names if name in self._readers]

    def _begin(self, name: str) -> None:
        def reached(step: str) -> None:
            if step == "before append":
                time.sleep(self.pause_s)
            if step == "before commit" and name == self.holds_up and not self.go_on.is_set():
                self.held.set()
                assert self.go_on.wait(30.0)
                if self.dies:
                    raise SystemExit

        reader = StreamReader(
            self.control, self.settings, self._opened, self._kafka, self.name, name, failpoint=reached
        )
        thread = threading.Thread(target=reader.run, name=name, daemon=True)
        self._readers[name] = (reader, thread)
        thread.start()

    def _statuses(self) -> dict[str, dict[str, Any]]:
        own = {"reason": "", "pid": 1, "cpu": 0.0, "host": "here", "host_cpu": None}
        return {name: {"state": pair[0].status.state, **own} for name, pair in self._readers.items()}

    def there(self) -> list[int]:
        return []

    def drain(self, name: str) -> bool:
        reader, thread = self._readers[name]
        reader.stop()
        return not thread.is_alive()

    def turn_until(self, what: Callable[[], bool], message: str) -> None:
        def turned() -> bool:
            self.watch.turn()
            return what()

        wait_until(turned, 30.0, message)


@pytest.fixture
def scaled(
    service: Callable[[str], Running], control: ControlStore, event_log: RedisEventLog, ingest_settings: Settings,
    unique: str, tmp_path: Any,
) -> Iterator[ScaledFeed]:  # fmt: skip
    """A stream of a topic of four partitions, whose workers come and go."""
    settings = ingest_settings.model_copy(update={"state_dir": tmp_path})
    made = ScaledFeed(Topic(service("kafka"), unique, PARTITIONS), control, event_log, settings)
    made.add()
    yield made
    made.go_on.set()
    made.close()


def fill(feed: ScaledFeed, person: Person, first: int, each: int) -> Counter[str]:
    """So many in each partition; which."""
    sent: Counter[str] = Counter()
    for partition in range(PARTITIONS):
        names = [f"p{partition}-{n}" for n in range(first, first + each)]
        feed.topic.send([person(name, n=1) for name in names], partition)
        sent.update(names)
    return sent


def test_workers_come_with_lag_and_go_without_it_and_each_record_is_read_once(
    scaled: ScaledFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    scaled.pause_s = 0.05
    sent = fill(scaled, person, 0, EACH)
    scaled.turn_until(scaled.drained, "the topic is read")
    assert scaled.most == PARTITIONS
    sent += fill(scaled, person, EACH, 5)
    scaled.turn_until(lambda: scaled.drained() and scaled.scaled.wanted() == [W0], "one worker is left")
    sent += fill(scaled, person, EACH + 5, 5)
    scaled.turn_until(scaled.drained, "it reads all partitions")
    assert ids(logged()) == sent
    assert sum(part.acked for part in scaled.parts()) == sent.total()


def _draining_with_a_batch(feed: ScaledFeed, person: Person) -> Counter[str]:
    """Two workers, of which one is to go and has a batch in its hands; what was sent."""
    feed.pause_s = 0.03
    sent = fill(feed, person, 0, 60)
    feed.turn_until(lambda: feed.most == 2, "there are two")
    feed.look_s = 0.0  # so soon after a change there is no other
    feed.turn_until(feed.drained, "the topic is read")
    feed.turn_until(lambda: bool(feed.status(W1).partitions), "both read")
    feed.holds_up = W1
    sent += fill(feed, person, 60, 2)
    assert feed.held.wait(10.0)
    feed.look_s = 1.0
    feed.turn_until(lambda: W1 not in feed.scaled._names, "it is drained")
    assert feed.scaled.wanted() == [W0, W1]
    return sent


def test_what_a_worker_holds_that_is_drained_is_left_to_it(
    scaled: ScaledFeed, logged: Callable[[], list[Record]], person: Person
) -> None:
    sent = _draining_with_a_batch(scaled, person)
    mine = set(scaled.status(W1).partitions)
    end = time.monotonic() + 0.5  # well below a lease
    while time.monotonic() < end:
        scaled.watch.turn()
        assert not mine & set(scaled.status(W0).partitions)
        assert scaled.scaled.wanted() == [W0, W1]
    scaled.go_on.set()
    scaled.turn_until(lambda: scaled.drained() and scaled.scaled.wanted() == [W0], "it is drained, and goes")
    assert ids(logged()) == sent, "nothing was appended twice"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_dies_while_it_is_drained_leaves_nothing_out(
    scaled: ScaledFeed, folded: Callable[[], Fold], person: Person
) -> None:
    scaled.set(lease_s=2.0)
    sent = _draining_with_a_batch(scaled, person)
    scaled.dies = True
    scaled.go_on.set()
    scaled.turn_until(lambda: scaled.drained() and scaled.scaled.wanted() == [W0], "its lease has run out")
    assert set(shown(folded())) == set(sent)
    assert sum(part.acked for part in scaled.parts()) == sent.total()
