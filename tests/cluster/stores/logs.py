"""The event log's servers as tests of every log see them: a place where a log is opened, and faults of its server."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from typing import Any

from cluster.config import LogSettings
from cluster.config_kafka import KafkaSettings
from cluster.embedded import Running, kill, start, stop
from cluster.stores.log import Append, EventLog
from cluster.stores.open_log import open_log
from cluster.stores.redis_address import RedisAddress
from tests.kafka_broker import KafkaBroker

SETTINGS = LogSettings(partitions=4, entry_bytes=1 << 20, timeout_s=5.0, block_ms=100)
MANY, MB = 1000, 1 << 20


class Place(ABC):
    """One log's place on a server; logs opened here are closed by `close`.

    Args:
        name: of the log there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._opened: list[EventLog] = []

    def open(self, **changes: Any) -> EventLog:
        """The log, under `SETTINGS` with changes. Several are connections of their own to one log."""
        log = open_log(*self.arguments(**changes))
        self._opened.append(log)
        return log

    def close(self) -> None:
        """Closes what was opened here."""
        for log in self._opened:
            log.close()

    @abstractmethod
    def arguments(self, **changes: Any) -> tuple[LogSettings, RedisAddress, str]:
        """What `open_log` takes; can be pickled."""

    @abstractmethod
    def beside(self, name: str) -> Place:
        """Another log on the same server."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL to the server."""

    @abstractmethod
    def stop(self) -> None:
        """An orderly end of the server."""

    @abstractmethod
    def start(self) -> None:
        """Starts the server again, on its files."""

    @abstractmethod
    def pause(self) -> None:
        """The server stands still, with its connections open."""

    @abstractmethod
    def resume(self) -> None:
        """Ends `pause`."""


class RedisPlace(Place):
    """A log on an embedded Redis."""

    def __init__(self, server: Running, name: str) -> None:
        super().__init__(name)
        self.server = server

    def arguments(self, **changes: Any) -> tuple[LogSettings, RedisAddress, str]:
        """See `Place.arguments`."""
        address = RedisAddress(socket=str(self.server.socket), password=self.server.password)
        return SETTINGS.model_copy(update=changes), address, self.name

    def beside(self, name: str) -> Place:
        """See `Place.beside`."""
        return RedisPlace(self.server, name)

    def kill(self) -> None:
        """See `Place.kill`."""
        kill(self.server)

    def stop(self) -> None:
        """See `Place.stop`."""
        stop(self.server)

    def start(self) -> None:
        """See `Place.start`."""
        self.server = start(self.server.spec)

    def pause(self) -> None:
        """See `Place.pause`."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """See `Place.resume`."""
        os.kill(self.server.pid, signal.SIGCONT)


class KafkaPlace(Place):
    """A log on a Kafka broker."""

    def __init__(self, broker: KafkaBroker, name: str, **kafka: Any) -> None:
        super().__init__(name)
        self.broker = broker
        alone = {"bootstrap": broker.bootstrap, "replication_factor": 1, "min_in_sync": 1, "topic_prefix": name}
        self.settings = KafkaSettings(**{**alone, **kafka})

    @property
    def topic(self) -> str:
        """Of the log's entries."""
        return f"{self.name}.log-1"

    def arguments(self, **changes: Any) -> tuple[LogSettings, RedisAddress, str]:
        """See `Place.arguments`."""
        return SETTINGS.model_copy(update={"kind": "kafka", "kafka": self.settings, **changes}), RedisAddress(), ""

    def beside(self, name: str) -> Place:
        """See `Place.beside`."""
        return KafkaPlace(self.broker, name)

    def kill(self) -> None:
        """See `Place.kill`."""
        self.broker.kill()

    def stop(self) -> None:
        """See `Place.stop`."""
        self.broker.stop()

    def start(self) -> None:
        """See `Place.start`."""
        self.broker.start()

    def pause(self) -> None:
        """See `Place.pause`."""
        self.broker.pause()

    def resume(self) -> None:
        """See `Place.resume`."""
        self.broker.resume()


def fill(log: EventLog, count: int, partition: int = 0, size: int = 10) -> list[int]:
    """Appends so many entries of so many bytes in one call; their numbers."""
    return log.append([Append(partition, bytes([n % 256]) * size, n) for n in range(1, count + 1)])


def fill_until_refused(log: EventLog, attempts: int) -> None:
    """Appends entries of 1 MB that do not compress."""
    for _ in range(attempts):
        log.append([Append(0, os.urandom(MB), 1)])
