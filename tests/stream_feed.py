"""A stream read by readers in threads, as actors would have them: for tests, which turn its watch by hand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any

from actors.ahead import Ahead
from actors.stream_reader import StreamReader
from actors.stream_watch import StreamWatch
from cluster.config import Settings
from cluster.config_kafka import KafkaConnection
from cluster.config_streams import StreamSettings
from cluster.errors import NotFound
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.log import EventLog
from cluster.streams.model import Look, StreamPartition, StreamSpec
from tests.faults.harness import wait_until
from tests.kafka_topics import Topic


class _Shared:
    """The test's log, which a reader must not close."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def close(self) -> None:
        """Stays open."""


class Feed:
    """A stream with its readers, each in a thread as an actor would have it, and the watch turned by hand."""

    def __init__(
        self, bootstrap: str, topic: str, control: ControlStore, log: EventLog, settings: Settings, name: str = "feed",
        batch_bytes: int = 64 << 20,
    ) -> None:  # fmt: skip
        self.name, self._topic, self.control, self._log = name, topic, control, log
        streams = StreamSettings(kafka=KafkaConnection(bootstrap=bootstrap), lease_s=2.0, block_ms=50)
        self.settings = settings.model_copy(update={"streams": streams})
        self._kafka = KafkaStream(self.settings.streams.kafka, 5.0, 1 << 20, batch_bytes)
        self._readers: dict[str, tuple[StreamReader, threading.Thread]] = {}
        self.workers: list[str] = []
        self.caps: dict[str, float] = {}
        self._dying: set[str] = set()
        self.ahead: Ahead | None = None
        self.watch = StreamWatch(control, self._kafka.look, lambda parts: self.workers, self._assign)

    def exists(self) -> bool:
        """Whether the topic is there."""
        try:
            self._kafka.look(self._topic)
        except NotFound:
            return False
        return True

    def add(self, *tenants: str, **named: Any) -> None:
        for tenant in tenants or ("acme",):
            self.control.sources.register(tenant, self.name, 0.0)
        self.control.streams.add(StreamSpec(self.name, tenants or ("acme",), self._topic, **named), 0.0)

    def start(self, *workers: str, failpoint: Failpoint = no_failpoint) -> None:
        for worker in workers:
            reader = StreamReader(
                self.control,
                self.settings,
                self._opened,
                self._kafka,
                self.name,
                worker,
                failpoint=self._mortal(worker, failpoint),
                ahead=self.ahead,
            )
            thread = threading.Thread(target=reader.run, name=worker, daemon=True)
            self._readers[worker] = (reader, thread)
            self.workers.append(worker)
            thread.start()
        self.watch.turn()

    def _opened(self) -> EventLog:
        return _Shared(self._log)  # type: ignore[return-value]

    def _assign(self, worker: str, shares: Any, _: Any) -> dict[str, str]:
        reader = self._readers[worker][0]
        reader.assign(shares.get(self.name, ()), self.caps.get(self.name, inf))
        return {self.name: reader.waits_for}

    def status(self, worker: str = "w") -> Any:
        return self._readers[worker][0].status

    def parts(self) -> Sequence[StreamPartition]:
        return self.control.streams.partitions(self.name)

    def drained(self) -> bool:
        self.watch.turn()
        parts = self.parts()
        return bool(parts) and all(part.epoch and part.cut is None and not part.lag_records for part in parts)

    def wait(self) -> None:
        wait_until(self.drained, 20.0, "the topic is read to its end")

    def skip_removed(self) -> None:
        look = self._kafka.look(self._topic)
        self.control.streams.skip_removed(self.name, Look(look.id, look.first, look.end))

    def stop(self, *workers: str) -> None:
        chosen = [self._readers.pop(worker) for worker in workers or tuple(self._readers)]
        for reader, _ in chosen:
            reader.stop()
        for _, thread in chosen:
            thread.join(10.0)
        self.workers[:] = list(self._readers)

    def kill(self, old: str, new: str) -> None:
        """A worker dies before its next commit, and another one comes: it gets what the lease of the dead one frees."""
        self._dying.add(old)
        self.workers.remove(old)
        self.start(new)

    def _mortal(self, worker: str, failpoint: Failpoint) -> Failpoint:
        def reached(step: str) -> None:
            if step == "before commit" and worker in self._dying:
                raise SystemExit
            failpoint(step)

        return reached

    def close(self) -> None:
        self.stop()
        self._kafka.close()


class TopicFeed(Feed):
    """A stream of a topic that the test fills."""

    def __init__(self, topic: Topic, *arguments: Any) -> None:
        super().__init__(topic.bootstrap, topic.name, *arguments)
        self.topic = topic


def ids(records: Sequence[Record]) -> Counter[str]:
    """How often each thing is said."""
    return Counter(record.id for record in records)


def shown(fold: Fold) -> dict[str, str]:
    """What things say, by their ids."""
    return {thing[4]: merged.props for thing, merged in fold.visible()}
