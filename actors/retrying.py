"""Calls that are tried again while a store is down: the cursor stops, nothing is skipped."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cluster.config import IngestLimits
from cluster.errors import Fenced, Retryable

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts, and when to give up.

    Args:
        first_s, most_s: the wait doubles from one to the other; each is taken between its half and its whole.
        deadline_s: after so long the last error is raised.
        clock: seconds, monotonic.
    """

    first_s: float
    most_s: float
    deadline_s: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    @classmethod
    def of(cls, limits: IngestLimits) -> Backoff:
        """As configured for sources."""
        return cls(limits.retry_first_s, limits.retry_most_s, limits.retry_deadline_s)

    def call(self, step: Callable[[], T], retried: Callable[[Retryable], None] = lambda error: None) -> T:
        """What `step` returns, once it does. It has to be safe to repeat.

        An error that says when to come back is waited for as long, up to `most_s`. A Fenced one is raised at
        once: somebody else has the work.
        """
        until, wait = self.clock() + self.deadline_s, self.first_s
        while True:
            try:
                return step()
            except Fenced:
                raise
            except Retryable as error:
                pause = min(self.most_s, max(wait, error.retry_after_s)) * (0.5 + self.jitter() / 2)
                if self.clock() + pause > until:
                    raise
                retried(error)
                self.sleep(pause)
                wait = min(self.most_s, wait * 2)
