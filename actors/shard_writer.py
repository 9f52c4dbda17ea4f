"""Shard writer: the loop that carries the log into one shard, exactly once in effect.

    read → fold by register → write → count → advance the cursor

The shard, not the log, says where to go on: a cursor lives in the shard beside its effects and moves only after
them, so whatever is applied twice is a duplicate and a shard that comes back older heals from the log. While the
shard works on one batch, the text of the next is built, of all that comes meanwhile. One writer owns the shard's
partitions under a lease; whoever lost it is refused by the shard.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import msgspec
import numpy as np
import polars as pl

from actors.folding import alone, lanes_of, resolve, split_by_register
from actors.gulp import Gulp, joined
from actors.shard_floors import hide_below, merge_anew
from actors.tempo import Tempo, more_behind
from cluster import batch
from cluster.batch import Frame, Mask, frame_of, only
from cluster.errors import Corrupt
from cluster.fold import Floors, Priorities, Thing, fold_batch, thing_of
from cluster.model import Kind, Record
from cluster.stores.graph import CursorMove, Fence, GraphShard, Outcomes, WriteCounts, merged_record
from cluster.stores.log import Entry
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.writer")
_GLANCE_S, _AHEAD_S = 0.01, 0.02
"""Until the log is looked at again while the shard is at work: at first, and later or after something was found. A
reading costs some milliseconds of CPU, which a shard that is done before that had better have itself."""
_PATIENT_S = 5.0
"""A shard that has not answered for so long is waited for alone, by its client, which gives it up in time: what comes
meanwhile is not read on, however much it is."""
_WAITED_MOST = 2_000
"""Of the readings' times that nobody looks at, the last ones."""


class LogReader(Protocol):
    """The part of the event log that a writer needs."""

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> Mapping[int, Sequence[Entry]]:
        """Entries after the given number of each partition; continuity is checked by the log."""


@dataclass
class WriterCounters:
    """What a writer did since it started; the shard's cursors hold what is exact."""

    records: int = 0
    applied: int = 0
    duplicate: int = 0
    stale: int = 0
    conflicts: int = 0
    batches: int = 0
    fenced: int = 0
    resolved: int = 0


class ShardWriter:
    """Carries the log's partitions into one shard.

    Args:
        shard: the shard, on a connection of this writer's own.
        log: where entries are read.
        fence: epoch, lease and partitions; the lease has to be taken before.
        owns: whether this shard owns a bucket.
        limit_entries, limit_bytes: bounds of one reading, for each partition. Readings go together until they have
            `limit_bytes` in all.
        block_ms: how long to wait for entries when there are none.
        interval_s: between two readings that found something and left nothing behind, at least.
        log_partitions: how many the log has, so that the shard's lanes share the fence's; None: one lane does all.
    """

    def __init__(
        self,
        shard: GraphShard,
        log: LogReader,
        fence: Fence,
        owns: Callable[[int], bool],
        limit_entries: int = 16,
        limit_bytes: int = 8 << 20,
        block_ms: int = 200,
        log_partitions: int | None = None,
        interval_s: float = 0.0,
    ) -> None:
        self._shard = shard
        self._log_partitions = log_partitions
        self._lanes = lanes_of(fence, shard.lanes if log_partitions else 1)
        self._log = log
        self._fence = fence
        self._owns = owns
        self._limits = (limit_entries, limit_bytes)
        self._block_ms = block_ms
        self._tempo, self._interval_s = Tempo(), interval_s
        cursors = {p: c for p, c in shard.cursors().items() if p in fence.partitions}
        self._at = {p: c.at for p, c in cursors.items()}
        self.records_applied = {p: c.records for p, c in cursors.items()}
        self.records_passed = dict(self.records_applied)
        """Those of the entries before its positions, whichever shard's they are, as far as it knows."""
        self._floors, self._priorities = Floors(), Priorities()
        self._pending: Gulp | None = None
        self._held: Gulp | None = None
        """What was read, but cannot go together with what was read before it."""
        self.counters = WriterCounters()
        self.oldest_pending_ms = 0
        self.waited: deque[tuple[str, float]] = deque(maxlen=_WAITED_MOST)
        """(stage, seconds) of each reading until its rows were ready to be written: `ready` since its oldest record
        was appended, `pre_storage` since it was polled, where that was said. Whoever looks empties it."""
        self._recover()

    @property
    def positions(self) -> dict[int, int]:
        """Cursor of each partition as last confirmed by the shard."""
        confirmed = dict(self._at)
        for gulp in (self._held, self._pending):
            confirmed.update({m.partition: m.start for m in gulp.moves} if gulp else {})
        return confirmed

    def step(self) -> int:
        """One turn: read, send this batch, then wait for the one before. Returns records read.

        Blocks up to `interval_s` and `block_ms`, and while the shard works.

        Raises:
            Fenced: another writer or epoch has taken over; nothing more was written. OutcomeUnknown, Unavailable:
            make a new writer, which asks the shard where to go on.
        """
        gulp = self._next()
        self.flush()
        if gulp is None:
            return 0
        self._begin(gulp)
        self._pending = gulp
        self.oldest_pending_ms = gulp.oldest_ms
        return sum(m.records for m in gulp.moves)

    def _next(self) -> Gulp | None:
        """The next batch: what comes while the shard is at work on the one before is made ready meanwhile. None:
        nothing came in the time that one may wait for it."""
        began, wait_s = time.monotonic(), self._tempo.left_s()
        ahead, self._held = self._held, None
        while self._pending is not None and not (ahead and ahead.whole):
            if self._shard.answered(wait_s):
                self.flush()
            elif (gulp := self._read(0)) is not None:
                if ahead is None:
                    ahead = gulp
                elif (both := joined(ahead, gulp, self._limits[1], self._shard.joined)) is not None:
                    ahead = both
                else:
                    self._held = gulp
                    return ahead
                if time.monotonic() >= began + _PATIENT_S:
                    return ahead
                wait_s = max(_AHEAD_S, self._tempo.left_s())
                continue
            elif time.monotonic() >= began + self._block_ms / 1e3:
                return ahead
            wait_s = min(max(_GLANCE_S, 2 * wait_s), _AHEAD_S)
        if ahead is not None:
            return ahead
        if left_s := self._tempo.left_s():
            time.sleep(left_s)
        return self._read(self._block_ms)

    def flush(self) -> None:
        """Wait for the batch on its way, resolve what several sources speak of, then advance the cursors."""
        gulp, self._pending = self._pending, None
        self.oldest_pending_ms = 0
        if gulp is None:
            return
        self._advance(gulp, self._finish(gulp))

    def _finish(self, gulp: Gulp) -> WriteCounts:
        counts = self._shard.finish()
        several = gulp.several + counts.others
        if several:
            self._resolve(several, counts)
        for record, outcome in gulp.settled:
            counts.count(record, outcome)
        counts.conflicts += gulp.conflicts
        return counts

    def apply(self, records: Iterable[Record]) -> WriteCounts:
        """Fold and write records without moving a cursor: healing, rebuilding. Safe to call twice."""
        rows = frame_of(list(records))
        gulp = self._prepare([], rows, *self._mine(rows))
        self._begin(gulp)
        return self._finish(gulp)

    def jump(self, partition: int, to: int, counts: WriteCounts) -> None:
        """Move a cursor over an entry whose records were applied from the lake, and count them."""
        start, o = self._at[partition], counts.all
        move = CursorMove(partition, start, to, o.total, o.applied, o.duplicate, o.stale)
        self._shard.advance(self._fence, [move], counts)
        self._at[partition] = to
        self.records_applied[partition] += o.total
        self.records_passed[partition] += o.total
        self._count(o, counts.conflicts.total())

    def _begin(self, gulp: Gulp) -> None:
        self._shard.see_cases(self._fence, gulp.cases)
        self._apply_system(gulp)
        self._shard.begin(gulp.rows)
        gulp.rows = []  # sent: the texts are not kept for the answers

    def _read(self, block_ms: int) -> Gulp | None:
        read = self._log.read_many(self._at, *self._limits, block_ms=block_ms)
        entries = {partition: found for partition, found in sorted(read.items()) if found}
        if not entries:
            return None
        behind = more_behind(entries, *self._limits, self._interval_s, time.time())
        self._tempo.found(0.0 if behind else self._interval_s)
        rows, sizes = batch.decode_parts([entry.data for entry in found] for found in entries.values())
        is_fact, mine = self._mine(rows)
        upto = np.append(0, np.cumsum(is_fact & mine))[[0, *accumulate(sizes)]]
        moves = []
        for (partition, found), count in zip(entries.items(), np.diff(upto).tolist(), strict=True):
            moves.append(CursorMove(partition, self._at[partition], found[-1].number, count))
            self._at[partition] = found[-1].number
        gulp = self._prepare(moves, rows, is_fact, mine)
        gulp.oldest_ms = min(entry.appended_ms for found in entries.values() for entry in found)
        self._ready(gulp.oldest_ms, [e.polled_ms for found in entries.values() for e in found if e.polled_ms])
        gulp.bytes = sum(len(entry.data) for found in entries.values() for entry in found)
        gulp.passed = Counter({partition: sum(e.records for e in found) for partition, found in entries.items()})
        gulp.whole = gulp.bytes > self._limits[1] or bool(gulp.several or gulp.system)
        return gulp

    def _ready(self, appended_ms: int, polled_ms: Sequence[int]) -> None:
        now = time.time()
        self.waited.append(("ready", max(0.0, now - appended_ms / 1000)))
        if polled_ms:
            self.waited.append(("pre_storage", max(0.0, now - min(polled_ms) / 1000)))

    def _mine(self, rows: Frame) -> tuple[Mask, Mask]:
        """Which rows are facts, and which are to be taken here: facts of this shard's buckets, and all others."""
        is_fact, buckets = rows["kind"].to_numpy() < Kind.FLOOR, rows["bucket"].to_numpy()
        others = [bucket for bucket in np.unique(buckets[is_fact]).tolist() if not self._owns(bucket)]
        return is_fact, ~(is_fact & np.isin(buckets, others)) if others else np.ones(rows.height, bool)

    def _prepare(self, moves: list[CursorMove], rows: Frame, is_fact: Mask, mine: Mask) -> Gulp:
        system = batch.records_of(only(rows, ~is_fact)) if not is_fact.all() else []
        for floor in system:
            if floor.kind == Kind.FLOOR:
                self._floors.raise_to(floor.tenant, floor.source, floor.type, floor.version)
        facts = only(rows, is_fact & mine)
        lone = alone(facts, self._floors)
        folded = only(facts, lone)
        kept, settled, conflicts = fold_batch(batch.records_of(only(facts, ~lone)), self._floors)
        single, several = split_by_register(kept)
        if single:
            folded = pl.concat([folded, batch.frame_of(single)])
        cases = set(zip(facts["tenant"].to_list(), facts["case"].to_list(), strict=True))  # hidden records have one too
        encoded = [(fence, self._shard.encode(rows)) for fence, rows in self._by_lane(folded)]
        return Gulp(moves, cases, encoded, several, settled, conflicts, system=system)

    def _by_lane(self, rows: Frame) -> Iterator[tuple[Fence, Frame]]:
        if len(self._lanes) == 1 or self._log_partitions is None:
            yield self._fence, rows
            return
        partition = pl.col("bucket") % self._log_partitions  # `shard_map.partition_of`, of a column
        for fence in self._lanes:
            if (own := rows.filter(partition.is_in(fence.partitions))).height:
                yield fence, own

    def _resolve(self, records: list[Record], counts: WriteCounts) -> None:
        stored = self._shard.fetch(records)
        by_thing: dict[Thing, list[Record]] = defaultdict(list)
        for record in records:
            by_thing[thing_of(record)].append(record)
        replaced = []
        for thing, rows in by_thing.items():
            whole, changed = resolve(stored.get(thing), rows, self._floors, counts)
            if changed:
                replaced.append((whole, merged_record(whole, self._priorities)))
        self._shard.replace(self._fence, replaced)
        self.counters.resolved += len(replaced)

    def _advance(self, gulp: Gulp, counts: WriteCounts) -> None:
        done, total = counts.all, sum(m.records for m in gulp.moves)
        if done.total != total:
            raise Corrupt(f"{total} records had {done.total} outcomes")
        first, *rest = gulp.moves
        first = first._replace(applied=done.applied, duplicate=done.duplicate, stale=done.stale)
        self._shard.advance(self._fence, [first, *rest], counts)
        for (tenant, source), conflicts in counts.conflicts.items():
            LOG.warning("versions_with_two_contents", tenant=tenant, source=source, conflicts=conflicts)
        for move in gulp.moves:
            self.records_applied[move.partition] += move.records
            self.records_passed[move.partition] += gulp.passed.get(move.partition, 0)
        self._count(done, counts.conflicts.total())
        self.counters.batches += 1

    def _count(self, done: Outcomes, conflicts: int) -> None:
        c = self.counters
        c.records += done.total
        c.applied += done.applied
        c.duplicate += done.duplicate
        c.stale += done.stale
        c.conflicts += conflicts

    # --- floors and priorities: first kept, then applied, then marked done

    def _recover(self) -> None:
        """Everything known first, then what was not brought to its end: a merged view needs all priorities."""
        below: list[Record] = []
        ranked: list[tuple[Record, int]] = []
        for tenant, source, type_, version, done in self._shard.floors():
            self._floors.raise_to(tenant, source, type_, version)
            if not done:
                below.append(_floor(tenant, source, type_, version))
        for tenant, source, stamp, priority, done in self._shard.priorities():
            self._priorities.set(tenant, source, stamp, priority)
            if not done:
                ranked.append((_floor(tenant, source, "", "")._replace(stamp=stamp), priority))
        for record, priority in ranked:
            self._merge_anew(record, priority)
        for floor in below:
            self._hide(floor)

    def _apply_system(self, gulp: Gulp) -> None:
        for record in gulp.system:
            if record.kind == Kind.FLOOR:
                self._apply_floor(record)
            else:
                priority = int(msgspec.json.decode(record.props)["priority"])
                if self._priorities.set(record.tenant, record.source, record.stamp, priority):
                    self._merge_anew(record, priority)

    def _apply_floor(self, floor: Record) -> None:
        known = {(t, s, y): v for t, s, y, v, done in self._shard.floors() if done}
        if known.get((floor.tenant, floor.source, floor.type), "") < floor.version:
            self._shard.set_floor(self._fence, floor, done=False)
            self._hide(floor)

    def _hide(self, floor: Record) -> None:
        hide_below(self._shard, self._fence, floor, self._floors, self._priorities)
        self._shard.set_floor(self._fence, floor, done=True)

    def _merge_anew(self, record: Record, priority: int) -> None:
        self._shard.set_priority(self._fence, record, priority, done=False)
        merge_anew(self._shard, self._fence, record, self._priorities)
        self._shard.set_priority(self._fence, record, priority, done=True)

    def close(self) -> None:
        """Drop what is on its way and the connection. The cursor did not move: it will be read again."""
        self._pending = self._held = None
        self._shard.close()


def _floor(tenant: str, source: str, type_: str, version: str) -> Record:
    return Record(tenant, "", 0, Kind.FLOOR, 0, type_, "", "", "", "", "", source, f"{version}.", "", "", "{}", "")
