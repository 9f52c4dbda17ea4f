"""The lake appender: takes the log's entries to the lake, one commit every few seconds or some megabytes.

One loop: `read → check continuity → buffer → commit → report`. One appender works at a time (a lease says which);
one that lost its lease and does not know it yet is refused by the lake, since a commit names the positions that it
starts from. Nothing lives here but a buffer: a new appender asks the lake where to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from actors.tempo import more_behind
from cluster import batch
from cluster.config import LakeSettings
from cluster.errors import Conflict, Corrupt, Fenced
from cluster.stores.lake_entries import LakeEntry
from cluster.stores.lake_positions import Positions
from cluster.stores.log import Entry, LogIdentity, check_continuity

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

MAINTAIN_COMMITS = 20
READ_BYTES = 8 << 20
"""Bytes of one partition that one reading takes, at most."""
DECODED_RATIO = 4
"""Entries are compressed; decoded they are counted as this many times their bytes."""


class LogReader(Protocol):
    """What the appender needs of the event log (`cluster.stores.log.EventLog`)."""

    @property
    def identity(self) -> LogIdentity:
        """Which log this is."""
        ...

    @property
    def all_partitions(self) -> int:
        """How many partitions there are to read."""
        ...

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> Mapping[int, Sequence[Entry]]:
        """Entries that follow `after`, by partition."""
        ...


class Step(NamedTuple):
    """What one step did. `idle`: there was nothing to read and nothing due; `more`: it may have left something."""

    entries_read: int
    records_committed: int
    idle: bool
    more: bool


class LakeAppender:
    """Carries entries from log to lake. Not for several threads.

    Args:
        read_entries: entries of one partition that one reading takes, at most.
        holds_lease: asked before each commit; false stops with Fenced.
        report: called with the durable positions after each commit; the log may be trimmed to them.
        intend: called before each commit with how far it goes, by partition: a commit that was cut off may have landed.
        clock: seconds, monotonic. `wall_clock`: seconds since 1970, for maintenance, and to see what is old.
    """

    def __init__(
        self,
        log: LogReader,
        lake: Lake,
        settings: LakeSettings,
        read_entries: int,
        holds_lease: Callable[[], bool],
        report: Callable[[Positions], None],
        intend: Callable[[Mapping[int, int]], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._lake, self._settings = log, lake, settings
        self._read_entries = read_entries
        self._holds_lease, self._report, self._intend = holds_lease, report, intend
        self._clock, self._wall_clock = clock, wall_clock
        self._durable: Positions | None = None
        self._taken: dict[int, int] = {}
        self._buffer: list[LakeEntry] = []
        self._buffered_bytes = 0
        self._since = 0.0
        self._commits = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes read and not yet committed, decoded; at most commit_bytes and one reading."""
        return self._buffered_bytes

    def step(self, block_ms: int = 0) -> Step:
        """Reads once, and commits if it is time. Safe to call again after any error: what was not committed is
        read again.

        Args:
            block_ms: how long to wait for entries when there are none.

        Raises:
            LogGap, LogLostTail: the log does not hold what follows the lake's positions. Stop.
            Corrupt: the lake was filled from another log. Stop.
            Fenced: the lease is lost; nothing was written.
            Conflict: another appender was faster; the next step goes on behind it.
            Unavailable: log or lake do not answer, or the disk is full.
        """
        try:
            durable = self._durable if self._durable is not None else self._start()
            read, more = self._read(durable, block_ms)
            committed = self._commit(durable) if self._is_due() else 0
        except BaseException:
            self._forget()
            raise
        return Step(read, committed, idle=not read and not committed, more=more)

    def flush(self) -> Positions:
        """Commits what is buffered, whatever its age; returns the durable positions. Safe to call twice."""
        try:
            durable = self._durable if self._durable is not None else self._start()
            self._commit(durable)
        except BaseException:
            self._forget()
            raise
        return self._durable or durable

    def _start(self) -> Positions:
        identity = self._log.identity
        kept = self._lake.positions()
        if kept.is_empty:
            kept = Positions(kept.log or identity.name, max(kept.generation, identity.generation))
        if kept.log != identity.name:
            raise Corrupt(
                f"the lake was filled from log {kept.log!r}; this log is {identity.name!r}."
                " Restore the log's files, or move the lake away"
            )
        self._durable = kept
        self._taken = {partition: kept.of(partition).number for partition in range(self._log.all_partitions)}
        self._report(kept)
        return kept

    def _forget(self) -> None:
        self._durable = None
        self._buffer, self._buffered_bytes = [], 0

    def _read(self, durable: Positions, block_ms: int) -> tuple[int, bool]:
        """How many entries, and whether there may be more of a partition."""
        room = self._settings.commit_bytes - self._buffered_bytes
        if room <= 0:
            return 0, True
        limit = max(1, min(READ_BYTES, room // (DECODED_RATIO * len(self._taken))))
        found = self._log.read_many(self._taken, self._read_entries, limit, block_ms)
        for partition, entries in found.items():
            check_continuity(partition, self._taken[partition], [entry.number for entry in entries])
            for entry in entries:
                self._take(partition, entry)
        interval_s = self._settings.interval_ms / 1e3
        return sum(map(len, found.values())), more_behind(
            found, self._read_entries, limit, interval_s, self._wall_clock()
        )

    def _take(self, partition: int, entry: Entry) -> None:
        if not self._buffer:
            self._since = self._clock()
        rows = batch.decode_arrow(entry.data)
        self._buffer.append(LakeEntry(partition, entry.number, rows, entry.appended_ms))
        self._buffered_bytes += rows.nbytes
        self._taken[partition] = entry.number

    def _is_due(self) -> bool:
        if not self._buffer:
            return False
        full = self._buffered_bytes >= self._settings.commit_bytes
        return full or self._clock() - self._since >= self._settings.commit_s

    def _commit(self, durable: Positions) -> int:
        if not self._buffer:
            return 0
        if not self._holds_lease():
            raise Fenced("lake appender: its lease is lost; another appender goes on", retry_after_s=0.0)
        self._intend({entry.partition: entry.number for entry in self._buffer})
        reached = self._lake.append(self._buffer, durable)
        self._durable, self._buffer, self._buffered_bytes = reached, [], 0
        self._report(reached)
        self._commits += 1
        if self._commits % MAINTAIN_COMMITS == 0:
            self._maintain()
        return reached.records - durable.records

    def _maintain(self) -> None:
        try:
            self._lake.maintain(self._wall_clock())
        except Conflict:
            return  # another commit was faster: the next round does it
