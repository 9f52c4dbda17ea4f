"""How often a loop reads: what comes in a moment goes in one batch, for a batch costs about as much as its records.

t ─┬─ read, at once after a rest ── work ─┬─ left_s ─┬─ read
   └──────────────── interval ────────────┴──────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cluster.stores.log import Entry

_LATE_S = 0.1
"""So much older than an interval is what waited for more than its turn."""


class Tempo:
    """A bound on how often something is read. For one thread.

    Args:
        ticks: seconds of a clock that never goes back.
    """

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks, self._due = ticks, 0.0

    def found(self, interval_s: float) -> None:
        """Something was read just now; the next reading is so much later, at least."""
        self._due = self._ticks() + interval_s if interval_s else 0.0

    def left_s(self) -> float:
        """Seconds until it should be read again; 0 where it was at rest for long enough."""
        return max(0.0, self._due - self._ticks()) if self._due else 0.0


def more_behind(
    found: Mapping[int, Sequence[Entry]], limit_entries: int, limit_bytes: int, interval_s: float, now: float
) -> bool:
    """Whether a reading of the log may have left something: as much came as it takes, or what came last is old.

    Args:
        limit_entries, limit_bytes: of one partition.
        interval_s: between two readings.
        now: seconds since 1970. A clock that differs from the log's by much makes a loop read without rest, no more.
    """
    return any(
        len(entries) >= limit_entries
        or 2 * sum(len(entry.data) for entry in entries) > limit_bytes
        or now - entries[-1].appended_ms / 1e3 > interval_s + _LATE_S
        for entries in found.values()
        if entries
    )
