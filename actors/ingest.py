"""The ingest worker: batches of a source into the event log.

    poll → decode → validate → normalise → enrich → place → route → append → dead letters → commit

A batch is appended and its bad records are kept before the source's position is committed; so a worker that dies
anywhere reads some of it again, and what is appended twice is a duplicate. While a store is down the loop waits: the
source is not read on, and no more than one batch is in memory. Only bad records become dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from actors.admission import Admission, Prepared
from actors.connectors.base import Item, Position, RawRecord
from actors.retrying import Backoff
from actors.stages import Bad, Origin
from cluster.config import IngestLimits
from cluster.errors import Retryable
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import Append, EventLog

T = TypeVar("T")


class BatchSource(Protocol):
    """What the loop needs of a source: `actors.connectors.FileSource`, or anything that can be read from a position."""

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        """Batches in the order of positions, from behind `after`."""


@dataclass(frozen=True)
class DeadRecord:
    """A bad record with its place in the source."""

    item: Item
    bad: Bad


class Progress(Protocol):
    """Where a source's position is kept, with what became of its records. Both calls are safe to repeat."""

    def keep(self, dead: Sequence[DeadRecord]) -> None:
        """Keep bad records durably; there may be none."""

    def commit(self, position: Position, acked: int, dead: int) -> None:
        """Everything up to `position`, that of the batch's last item, is durable; () for a batch without items.

        Raises:
            Fenced: another worker reads the same range.
        """


@dataclass
class IngestCounts:
    """What a worker has done.

    Args:
        reached: log partition → number of the last entry that holds some of it.
        retries: calls that were repeated because a store was down or full.
        waiting: what it waits for now; empty where it goes on.
    """

    acked: int = 0
    dead: int = 0
    batches: int = 0
    retries: int = 0
    reached: dict[int, int] = field(default_factory=dict)
    waiting: str = ""


Report = Callable[[IngestCounts], None]


def _tell_nobody(counts: IngestCounts) -> None:
    pass


class IngestWorker:
    """Reads one range of one source. One thread; nothing that matters lives here.

    Args:
        failpoint: called with `polled`, `before append`, `after append`, `before commit`, `committed`.
        report: called before each repetition of a call; what it raises ends the batch.
    """

    def __init__(
        self,
        admission: Admission,
        log: EventLog,
        progress: Progress,
        limits: IngestLimits,
        backoff: Backoff | None = None,
        failpoint: Failpoint = no_failpoint,
        report: Report = _tell_nobody,
    ) -> None:
        self._admission, self._log, self._progress, self._limits = admission, log, progress, limits
        self._backoff, self._failpoint = backoff or Backoff.of(limits), failpoint
        self.counts = IngestCounts()
        self._report = report

    def run(
        self,
        source: BatchSource,
        origin: Origin,
        epoch: int,
        after: Position | None = None,
        report: Report = _tell_nobody,
    ) -> IngestCounts:
        """Reads to the source's end. Safe to call again from any committed position.

        Args:
            epoch: of this range of the source, for records without position.
            report: called after each batch, and before each repetition of a call; what it raises ends the reading.

        Raises:
            Rejected: the source cannot be read on. Retryable: a store stayed down beyond the deadline. What was
            committed before stays.
        """
        self._report = report
        for items in source.batches(after, self._limits.batch_records, self._limits.batch_bytes):
            self._failpoint("polled")
            self.take(items, origin, epoch)
            report(self.counts)
        return self.counts

    def take(
        self, items: Sequence[Item], origin: Origin, epoch: int, beside: Sequence[Append] = (), polled_ms: int = 0
    ) -> Prepared:
        """Brings one batch to its end: in the log, its bad records kept, its position committed. Safe to repeat.

        Args:
            beside: entries that are appended with it: floors, which are no records.
            polled_ms: see `Append`.

        Raises:
            Retryable: a store stayed down beyond the deadline.
        """
        batch = self._again(partial(self._prepare, items, origin, epoch))
        batch.entries[:] = [entry._replace(polled_ms=polled_ms) for entry in batch.entries] + list(beside)
        self._failpoint("before append")
        numbers = self._again(partial(self._append, batch))
        self._failpoint("after append")
        dead = [DeadRecord(items[index], bad) for index, bad in batch.bad()]
        self._again(partial(self._progress.keep, dead))
        self._failpoint("before commit")
        position = items[-1].position if items else ()
        self._again(partial(self._progress.commit, position, batch.good, len(dead)))
        self._failpoint("committed")
        self._count(batch, numbers, len(dead))
        return batch

    def _prepare(self, items: Sequence[Item], origin: Origin, epoch: int) -> Prepared:
        payloads = [item.payload if type(item) is RawRecord else _bad(item) for item in items]
        events = self._admission.examine(payloads, origin)
        return self._admission.place(events, origin, epoch, [item.position for item in items])

    def _append(self, batch: Prepared) -> list[int]:
        with self._admission.times.stage("append", batch.good):
            return self._log.append(batch.entries)

    def _again(self, step: Callable[[], T]) -> T:
        done = self._backoff.call(step, self._retried)
        self.counts.waiting = ""
        return done

    def _retried(self, error: Retryable) -> None:
        self.counts.retries += 1
        self.counts.waiting = str(error)
        self._report(self.counts)

    def _count(self, batch: Prepared, numbers: Sequence[int], dead: int) -> None:
        counts = self.counts
        counts.batches += 1
        counts.acked += batch.good
        counts.dead += dead
        for entry, number in zip(batch.entries, numbers, strict=True):
            counts.reached[entry.partition] = number


def _bad(item: Item) -> Bad:
    if isinstance(item, RawRecord):
        raise TypeError("not a bad row")
    return Bad(item.error_class, item.reason)
