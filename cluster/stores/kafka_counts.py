"""How many records a partition of the log holds, as well as an appender can know: for display of lag.

Kafka counts entries, not records. So each entry carries the total up to it, as its appender knew: the last total that
it has seen, plus its own. Of entries that others appended in between it knows the number, and takes them for average.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple


class _Known(NamedTuple):
    number: int = 0
    total: int = 0

    def at(self, number: int) -> int:
        """The total up to a later entry, if those in between are average ones."""
        average = self.total / self.number if self.number else 0.0
        return self.total + round((number - self.number) * average)


class RecordCounts:
    """What is known of each partition. Threads may share an instance."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._lock = threading.Lock()

    def last(self, partition: int) -> int:
        """Number of the last entry whose total is known."""
        return self._known.get(partition, _Known()).number

    def totals(self, partition: int, records: Sequence[int]) -> list[int]:
        """What entries of so many records say, appended now."""
        total = self._known.get(partition, _Known()).total
        return [total := total + count for count in records]

    def appended(self, partition: int, first: int, records: Sequence[int]) -> None:
        """Entries of so many records have the numbers from `first` on."""
        with self._lock:
            known = self._known.get(partition, _Known())
            if records and first > known.number:
                self._known[partition] = _Known(first + len(records) - 1, known.at(first - 1) + sum(records))

    def saw(self, partition: int, number: int, total: int) -> None:
        """An entry says what the total up to it is."""
        with self._lock:
            known = self._known.get(partition, _Known())
            if number > known.number:
                self._known[partition] = _Known(number, max(known.total, total))

    def estimate(self, partition: int, end: int) -> int:
        """The total up to `end`."""
        return self._known.get(partition, _Known()).at(max(end, self.last(partition)))
