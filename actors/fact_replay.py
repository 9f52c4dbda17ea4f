"""Replay of facts: what lake and log hold of a tenant, source, key or range is appended to the log once more.

    the log's ends of now (nothing behind them is read: what this appends is not read again)
        → by partition: lake, then log → what was asked for → each record once → append at the rate → how far is noted

Records keep their stamps, so each is a duplicate, or older than what is there, wherever a shard is whole, and heals it
where it is not. Floors and priorities of the same sources go with them, whatever else was asked for: without its floor
an old record would show again. A replay that was killed goes on where it was when the same is asked for again.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from actors.chosen_facts import Chosen, Once
from actors.replay_place import Place
from actors.retrying import Backoff
from actors.stack import Stack
from actors.stages.route import entries_of
from cluster import batch
from cluster.batch import Frame
from cluster.errors import Rejected
from cluster.model import Kind, Record
from cluster.shard_map import partition_of
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.lake_address import Pin
from cluster.stores.log import Entry, EventLog

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

_READ_ENTRIES, _READ_BYTES = 64, 8 << 20


@dataclass
class Replayed:
    """What a replay did, or would do.

    Args:
        records: appended, floors and priorities apart. system: floors and priorities appended.
        by_source: (tenant, source) → records. by_type: likewise.
        reached: log partition → number of the last entry appended.
        entries: of the log that were looked at. left: that were not yet.
        resumed: whether it went on where one before was cut off; then the counts are of this part alone.
    """

    records: int = 0
    system: int = 0
    by_source: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)
    reached: dict[int, int] = field(default_factory=dict)
    entries: int = 0
    left: int = 0
    seconds: float = 0.0
    resumed: bool = False


class _Part(NamedTuple):
    """Rows of whole entries of one log partition, up to entry `number`."""

    number: int
    rows: Frame


Tell = Callable[[Replayed], None]
"""Called now and then with what was done so far; not to be changed."""


class FactReplay:
    """Replays facts. One thread uses an instance.

    Args:
        clock: seconds, monotonic. sleep: waits some seconds. Both for the rate.
        failpoint: called with `begun`, `before append`, `after append`, `noted`.
    """

    def __init__(
        self,
        stack: Stack,
        log: EventLog,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._stack, self._log, self._clock, self._sleep, self._failpoint = stack, log, clock, sleep, failpoint
        self._backoff = Backoff.of(stack.settings.ingest)

    def replay(
        self, chosen: Chosen, actor: str, *, rate_per_s: float = 10_000.0, dry_run: bool = False,
        tell: Tell = lambda done: None,
    ) -> Replayed:  # fmt: skip
        """Append what was chosen once more. Safe to repeat, and harmless.

        Args:
            rate_per_s: records a second at most.
            dry_run: count, and append nothing.

        Raises:
            Rejected: the rate is not positive, or lake and log do not reach back to the beginning.
            Retryable: a store stayed down; the same again goes on.
        """
        if rate_per_s <= 0:
            raise Rejected("the rate of a replay is greater than 0")
        place = Place.find(self._stack.state_dir / "replays", chosen, self._log, afresh=dry_run)
        done = Replayed(resumed=place.resumed)
        if not dry_run:
            detail = {**chosen.as_plain(), "rate_per_s": rate_per_s, "resumed": place.resumed}
            whose = INSTALLATION if chosen.tenant is None else chosen.tenant
            self._stack.control.audit.append(whose, actor, "facts.replay", "", time.time(), detail)
        self._failpoint("begun")
        began = self._clock()
        with _Reading(self._stack, self._log, chosen) as reading:
            done.left = place.left()
            for partition, end in sorted(place.ends.items()):
                once = Once()
                for part in reading.parts(partition, place.at[partition], end):
                    rows = once.first(chosen.of(part.rows))
                    self._take(done, rows, rate_per_s, began, dry_run)
                    passed = part.number - place.at[partition]
                    done.entries, done.left = done.entries + passed, done.left - passed
                    place.reach(partition, part.number, durably=not dry_run)
                    self._failpoint("noted")
                    done.seconds = self._clock() - began
                    tell(done)
        if not dry_run:
            place.forget()
        done.seconds = self._clock() - began
        return done

    def _take(self, done: Replayed, rows: Frame, rate_per_s: float, began: float, dry_run: bool) -> None:
        facts = rows.filter(pl.col("kind") < Kind.FLOOR)
        for tenant, source, number in facts.group_by("tenant", "source").len().rows():
            done.by_source[tenant, source] += number
        for type_, number in facts.group_by("type").len().rows():
            done.by_type[type_] += number
        if dry_run:
            done.records, done.system = done.records + facts.height, done.system + rows.height - facts.height
            return
        size = max(1, min(self._stack.settings.ingest.batch_records, int(rate_per_s)))
        for page in rows.iter_slices(size):
            self._append(done, batch.records_of(page))
            if (early := began + done.records / rate_per_s - self._clock()) > 0:
                self._sleep(early)

    def _append(self, done: Replayed, records: list[Record]) -> None:
        """By the number of partitions that the log has now: the records may have been read from one that was given up.
        The bucket of a floor is the partition that it was appended to; every shard reads the one that comes of it."""
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(partition_of(record.bucket, self._log.identity.partitions), []).append(record)
        for partition, mine in by_partition.items():
            entries = entries_of(partition, mine, self._stack.settings.log.entry_bytes)
            self._failpoint("before append")
            done.reached[partition] = self._backoff.call(partial(self._log.append, entries))[-1]
            self._failpoint("after append")
        system = sum(record.kind >= Kind.FLOOR for record in records)
        done.records, done.system = done.records + len(records) - system, done.system + system


class _Reading:
    """Entries of the log as rows: from one pinned version of the lake, and behind its end from the log itself."""

    def __init__(self, stack: Stack, log: EventLog, chosen: Chosen) -> None:
        self._stack, self._log, self._chosen = stack, log, chosen
        self._lake: Lake | None = None
        self._pin = Pin("", None)

    def __enter__(self) -> _Reading:
        self._lake = self._stack.lake_address.find()
        if self._lake is None:
            return self
        self._pin = self._lake.pin(f"replay-{uuid.uuid4().hex[:16]}", time.time())
        return self

    def __exit__(self, *_: object) -> None:
        if self._lake is not None:
            self._lake.unpin(self._pin)
            self._lake.close()

    def parts(self, partition: int, after: int, end: int) -> Iterator[_Part]:
        """Rows of entries after+1 … end, in order; the last part says `end`.

        Raises:
            Rejected: the log is trimmed, and the lake does not have what was before.
        """
        kept = self._lake.positions(self._pin.version).of(partition).number if self._lake else 0
        if (begin := self._log.begins()[partition]) > max(kept, after) + 1:
            raise Rejected(
                f"log partition {partition} begins at entry {begin}, and the lake ends at {kept}: what is between"
                " cannot be replayed"
            )
        kept = min(kept, end)
        if self._lake is not None and after < kept:
            yield from self._of_lake(self._lake, partition, after, kept)
        yield from self._of_log(partition, max(after, kept), end)

    def _of_lake(self, lake: Lake, partition: int, after: int, kept: int) -> Iterator[_Part]:
        size = self._stack.settings.ingest.batch_records
        for rows in lake.read(
            partition=partition, after=after, upto=kept, tenant=self._chosen.tenant, source=self._chosen.source,
            since_ms=self._chosen.since_ms, until_ms=self._chosen.until_ms, at_version=self._pin.version,
        ):  # fmt: skip
            frame = pl.DataFrame(pl.from_arrow(rows))
            for part in _by_entries(frame, size):
                yield _Part(int(part["log_number"][-1]), part.select(batch.SCHEMA.names))
        yield _Part(kept, pl.DataFrame(pl.from_arrow(batch.SCHEMA.empty_table())))

    def _of_log(self, partition: int, after: int, end: int) -> Iterator[_Part]:
        while after < end:
            found = self._log.read(partition, after, _READ_ENTRIES, _READ_BYTES)
            after = min(found[-1].number, end)
            yield _Part(after, pl.concat([self._timely(entry) for entry in found if entry.number <= end]))

    def _timely(self, entry: Entry) -> Frame:
        rows = batch.decode_frame([entry.data])
        return rows if self._chosen.in_time(entry.appended_ms) else rows.filter(pl.col("kind") >= int(Kind.FLOOR))


def _by_entries(frame: Frame, least_rows: int) -> Iterator[Frame]:
    """Rows in order, divided between entries, each part of at least so many rows but the last."""
    counts = frame.group_by("log_number", maintain_order=True).len()["len"].to_list()
    at = size = 0
    for count in counts:
        size += count
        if size >= least_rows:
            yield frame.slice(at, size)
            at, size = at + size, 0
    if size:
        yield frame.slice(at, size)
