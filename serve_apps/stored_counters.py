"""What `/metrics` tells of others than actors: what the stores count themselves (see cluster/telemetry/stored.py), and
what the node has written down."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from actors.canary import told_canaries
from actors.stack import Stack
from actors.workers_told import told_workers
from cluster.errors import IntelGraphError
from cluster.stores.log import EventLog
from cluster.telemetry import metrics
from cluster.telemetry.stored import letter_counters, log_counters

LOG, CONTROL = "event-log", "control-store"


class StoredCounters:
    """Reads them, on a connection of its own. Threads may share an instance."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._lock = stack, threading.Lock()
        self._log: EventLog | None = None

    def expositions(self) -> dict[str, bytes]:
        """By store; one that does not answer has none."""
        found: dict[str, bytes] = {}
        with suppress(IntelGraphError):
            counted = self._stack.control.dead_letters.counted()
            found[CONTROL] = letter_counters(counted.came, counted.left)
        with suppress(IntelGraphError), self._lock:
            if self._log is None:
                self._log = self._stack.open_log()
            found[LOG] = log_counters(self._log.records())
        return found


def set_stream_workers(state_dir: Path) -> None:
    """Sets the gauges of this process that tell how many stream workers there are."""
    told = told_workers(state_dir)
    metrics.STREAM_WORKERS.set(told.ready if told else 0)
    metrics.STREAM_WORKERS_WANTED.set(told.wanted if told else 0)
    metrics.STREAM_WORKERS_DRAINING.set(len(told.draining) if told else 0)


def set_canaries(state_dir: Path, every_s: float) -> None:
    """Sets the gauges of this process that tell how long canaries take."""
    metrics.CANARY_SECONDS.clear()
    for canary in told_canaries(state_dir):
        metrics.CANARY_SECONDS.labels(canary.shard).set(canary.age_s(time.time(), every_s))
