"""The counters that the stores keep themselves, for `/metrics`: see cluster/telemetry/stored.py."""

from __future__ import annotations

import threading
from contextlib import suppress

from actors.stack import Stack
from cluster.errors import IntelGraphError
from cluster.stores.log import EventLog
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
