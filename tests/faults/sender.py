"""Who sends for as long as a soak lasts, and keeps nothing of what was sent."""

from __future__ import annotations

import random
import threading
import time

from cluster.errors import OutcomeUnknown, Retryable
from cluster.model import Record
from tests.faults.harness import Installation
from tests.faults.producer import entries_of, event

THINGS, TENANTS, BATCH = 1_000, 3, 200


class Sender:
    """Sends events that are made on the way, on a schedule that a fault does not move: what was due is sent later.

    It has what `recording.Gauge` asks of a producer: `invoked_at` is when the oldest unsent event was due.
    """

    total = 1 << 62

    def __init__(self, system: Installation, seed: int, rate_per_s: float | None, start: int = 1) -> None:
        self._system, self._rnd, self._rate, self._number = system, random.Random(seed), rate_per_s, start
        self.sent = self.unknown = self.refused = 0
        self.stopping = self.begun = False
        self._began = time.time()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    @property
    def invoked_at(self) -> float:
        """When the oldest event that is not sent was due."""
        return self._began + self.sent / self._rate if self._rate else time.time()

    @property
    def next_number(self) -> int:
        """Where another sender goes on."""
        return self._number

    def start(self) -> Sender:
        """Send in the background."""
        self._began, self.begun = time.time(), True
        self._system.producers[:] = [self]
        self._thread.start()
        return self

    def stop(self) -> None:
        """The batch on its way is the last one."""
        self.stopping = True
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "a batch is not acknowledged"

    def _run(self) -> None:
        while not self.stopping:
            rows = [event(self._rnd, self._number + n, TENANTS, THINGS) for n in range(BATCH)]
            self._number += BATCH
            self._send(rows)
            self.sent += BATCH
            time.sleep(max(0.0, self.invoked_at - time.time()))

    def _send(self, rows: list[Record]) -> None:
        while True:
            try:
                self._system.log.append(entries_of(rows, self._system.partitions))
            except Retryable as error:
                self.refused += 1
                self.unknown += BATCH * isinstance(error, OutcomeUnknown)
                time.sleep(0.05)
            else:
                return
