"""The event log on three Kafka brokers, of which some die."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cluster.errors import OutcomeUnknown, Retryable, Unavailable
from cluster.stores.log import Append, EventLog
from tests.cluster.stores.logs import MANY, MB, KafkaPlace
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.services, pytest.mark.production, pytest.mark.slow]

WITHIN_S = 60.0


class Appender:
    """Appends values that are counted up to all partitions, each until it is acknowledged."""

    def __init__(self, log: EventLog) -> None:
        self._log, self._value = log, 0
        self.acked: dict[tuple[int, int], bytes] = {}

    def until(self, done: Callable[[], bool]) -> None:
        """Appends until so."""
        until = time.monotonic() + WITHIN_S
        while not done():
            assert time.monotonic() < until
            self._value += 1
            self._acknowledged([Append(p, b"%d in %d" % (self._value, p), 1) for p in range(4)])

    def _acknowledged(self, entries: list[Append]) -> None:
        until = time.monotonic() + WITHIN_S
        while True:
            try:
                numbers = self._log.append(entries)
                break
            except Retryable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        self.acked |= {(entry.partition, n): entry.data for entry, n in zip(entries, numbers, strict=True)}


def read_all(log: EventLog, ends: dict[int, int]) -> dict[tuple[int, int], bytes]:
    """Every entry up to `ends`, over whatever happens to the brokers."""
    after, found = dict.fromkeys(ends, 0), dict[tuple[int, int], bytes]()
    until = time.monotonic() + WITHIN_S
    while any(after[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < until, (after, ends)
        try:
            came = log.read_many(after, MANY, MB, 100)
        except Retryable:
            time.sleep(0.2)
            continue
        for partition, entries in came.items():
            after[partition] = entries[-1].number
            found |= {(partition, entry.number): entry.data for entry in entries}
    return found


def test_brokers_die_and_nothing_that_was_acknowledged_is_lost(kafka_cluster: list[KafkaBroker], unique: str) -> None:
    first, second, third = kafka_cluster
    named = ",".join(broker.bootstrap for broker in kafka_cluster)
    place = KafkaPlace(first, unique, bootstrap=named, replication_factor=3, min_in_sync=2)
    log = place.open(timeout_s=8.0)
    appender = Appender(log)
    appender.until(lambda: len(appender.acked) >= 40)

    killer = threading.Timer(0.1, second.kill)
    killer.start()
    killed_with = len(appender.acked)
    appender.until(lambda: not second.running and len(appender.acked) >= killed_with + 80)
    assert appender.acked.items() <= read_all(log, log.ends()).items()

    third.kill()
    with pytest.raises((Unavailable, OutcomeUnknown), match="in sync"):
        _until_refused_for_want_of_replicas(log)
    second.start()
    third.start()
    back_with = len(appender.acked)
    appender.until(lambda: len(appender.acked) >= back_with + 40)
    again = place.open(timeout_s=8.0)
    found = read_all(again, again.ends())
    assert appender.acked.items() <= found.items()
    assert len(found) == sum(again.ends().values())
    place.close()


def _until_refused_for_want_of_replicas(log: EventLog) -> None:
    """Appends until the brokers have noticed that too few of them are left."""
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            log.append([Append(0, b"too few", 1)])
        except Retryable as error:
            if "in sync" in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.2)
