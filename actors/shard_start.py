"""How a writer comes to its shard: take it over, heal it, and let readers in.

    epoch → lease → entries that the log has lost are stepped over → buckets it lacks are rebuilt, others dropped
          → entries that were for others alone are passed over → gaps of the log are filled from the lake
          → (the loop reaches the log's ends of that moment) → readers are let in

Everything is safe to do again: what is written twice is a duplicate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from actors.shard_counts import step_over_lost
from actors.shard_writer import ShardWriter
from cluster import batch
from cluster.errors import Fenced
from cluster.model import Kind, Record
from cluster.shard_map import ShardMap
from cluster.stores.graph import Fence, GraphShard, WriteCounts
from cluster.stores.log import Entry, EventLog, LogLostTail
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

LOG = Log("intelgraph.shard")
_PAGE = 4_000


@dataclass
class Start:
    """What a writer needs to take its shard over.

    Args:
        shard_id: in registry and map.
        epoch: the registry's; the shard refuses writers and readers of any other.
        lease: token of the control store's lease, higher than every earlier one.
        open_lake: called only when something has to be healed.
        upto: log partition → entry behind which nothing is read; None: all that comes.
    """

    shard_id: str
    epoch: int
    lease: int
    map: ShardMap
    shard: GraphShard
    log: EventLog
    open_lake: Callable[[], Lake]
    upto: Mapping[int, int] | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """Log partitions with entries for this shard."""
        return self.map.partitions_of(self.shard_id)


def start_writer(
    start: Start, read_entries: int, read_bytes: int, block_ms: int, interval_s: float = 0.0
) -> ShardWriter:
    """A writer that goes on where the shard says; the shard is healed first.

    Raises:
        Fenced: a later epoch or lease is known to the shard.
        LogLostTail: the log ends below what the shard has. Stop.
    """
    shard, owned = start.shard, frozenset(start.map.buckets_of(start.shard_id))
    shard.prepare()
    state = shard.state()
    if state is None or state.raised < start.epoch:
        shard.raise_epoch(start.epoch)
    elif state.raised > start.epoch:
        raise Fenced(f"shard {start.shard_id} is at epoch {state.raised}, the registry at {start.epoch}: reload it")
    had, unsure = (state.owned, state.lacking) if state else (frozenset[int](), frozenset[int]())
    unsure |= had ^ owned  # marked before anything is done, so that a start that dies half way is done again
    fence = Fence(start.epoch, start.lease, start.partitions)
    shard.take_lease(fence)
    _check_tails(start)
    shard.own(start.epoch, had & owned, unsure, fence)
    for bucket in sorted(unsure - owned):
        shard.drop_bucket(start.epoch, bucket)
    lacking = owned & unsure
    step_over_lost(shard, start.log, fence, owned.__contains__, start.open_lake)
    at = {p: c.at for p, c in shard.cursors().items() if p in fence.partitions}
    shard.own(start.epoch, owned, lacking, fence)
    log = start.log if start.upto is None else UpTo(start.log, start.upto)
    writer = ShardWriter(
        shard, log, fence, owned.__contains__, read_entries, read_bytes, block_ms, start.map.partitions, interval_s
    )
    if lacking and any(at.values()):
        LOG.warning("buckets_rebuild", shard=start.shard_id, buckets=len(lacking))
        _rebuild(start, writer, lacking, at)
    shard.own(start.epoch, owned, (), fence)
    _pass_over_others(start, writer)
    _fill_gaps(start, writer, {p: writer.positions[p] for p in at})
    return writer


def _check_tails(start: Start) -> None:
    ends = start.log.ends()
    for partition, cursor in start.shard.cursors().items():
        if partition in start.partitions and cursor.at > ends.get(partition, 0):
            raise LogLostTail(partition, cursor.at, ends.get(partition, 0))


def _pass_over_others(start: Start, writer: ShardWriter) -> None:
    """Of a partition that has entries for this shard since the log got its number of partitions, all before is others'.

    An appender that did not know of the new number appends by the one before, behind the seam, where it is read.
    """
    new = start.map.new_to(start.shard_id)
    begun = [one for one in start.log.generations if one.partitions == start.map.partitions] if new else []
    for partition in new if begun else ():
        if writer.positions[partition] < (end := begun[0].seams[partition].end):
            writer.jump(partition, end, WriteCounts())


def _pages(records: Iterable[Record]) -> Iterable[list[Record]]:
    rest = iter(records)
    while page := list(islice(rest, _PAGE)):
        yield page


def _joined(entries: Iterable[tuple[int, list[Record]]]) -> Iterable[tuple[int, list[Record]]]:
    """Entries put together until they hold a page of records; the number is the last one's."""
    joined: list[Record] = []
    number = said = 0
    for number, records in entries:
        joined += records
        if len(joined) >= _PAGE:
            yield number, joined
            joined, said = [], number
    if number > said:
        yield number, joined


def _from_lake(lake: Lake, partition: int, after: int, upto: int | None) -> Iterable[tuple[int, list[Record]]]:
    for entry in lake.entries(partition, after, upto):
        yield entry.number, batch.from_arrow(entry.batch)


def _from_log(log: EventLog, partition: int, after: int, upto: int) -> Iterable[tuple[int, list[Record]]]:
    while after < upto:
        for entry in log.read(partition, after, 64, 8 << 20):
            if entry.number > upto:
                return
            yield entry.number, batch.decode(entry.data)
            after = entry.number


def _history(start: Start, partition: int, upto: int) -> Iterable[tuple[int, list[Record]]]:
    """Entries 1 … upto of a partition, from the lake as far as the log is trimmed."""
    begin = start.log.begins()[partition]
    if begin > 1:
        with start.open_lake() as lake:
            yield from _from_lake(lake, partition, 0, min(begin - 1, upto))
    yield from _from_log(start.log, partition, begin - 1, upto)


def _rebuild(start: Start, writer: ShardWriter, buckets: frozenset[int], at: Mapping[int, int]) -> None:
    for partition, upto in at.items():
        mine = (
            [r for r in records if r.kind >= Kind.FLOOR or r.bucket in buckets]
            for _, records in _history(start, partition, upto)
        )
        for page in _pages(chain.from_iterable(mine)):
            writer.apply(page)


def _fill_gaps(start: Start, writer: ShardWriter, at: Mapping[int, int]) -> None:
    begins = start.log.begins()
    for partition, position in at.items():
        last = begins[partition] - 1 if start.upto is None else min(begins[partition] - 1, start.upto[partition])
        if position >= last:
            continue
        LOG.warning("shard_heals_from_lake", shard=start.shard_id, partition=partition, entries_after=position)
        with start.open_lake() as lake:
            for number, records in _joined(_from_lake(lake, partition, position, last)):
                writer.jump(partition, number, writer.apply(records))


class UpTo:
    """A log that ends at given entries."""

    def __init__(self, log: EventLog, ends: Mapping[int, int]) -> None:
        self._log, self._ends = log, ends

    def read_many(
        self, after: Mapping[int, int], limit_entries: int, limit_bytes: int, block_ms: int = 0
    ) -> dict[int, list[Entry]]:
        """See `EventLog.read_many`."""
        wanted = {p: at for p, at in after.items() if at < self._ends[p]}
        found = self._log.read_many(wanted, limit_entries, limit_bytes, block_ms) if wanted else {}
        within = {p: [entry for entry in entries if entry.number <= self._ends[p]] for p, entries in found.items()}
        return {p: entries for p, entries in within.items() if entries}


class Readiness:
    """Lets readers in once the cursors have reached the log's ends of the moment of starting."""

    def __init__(self, start: Start) -> None:
        self._shard, self._epoch = start.shard, start.epoch
        self._ends = {p: n for p, n in start.log.ends().items() if p in start.partitions}
        self.ready = False
        self._since = time.monotonic()

    def look(self, writer: ShardWriter) -> bool:
        """Whether readers are let in; to be called after each turn of the loop."""
        positions = writer.positions
        if not self.ready and all(positions.get(p, 0) >= end for p, end in self._ends.items()):
            writer.flush()  # its answers come on the same connection
            self._shard.serve(self._epoch)
            self.ready = True
            LOG.info("shard_serves", epoch=self._epoch, seconds=round(time.monotonic() - self._since, 3))
        return self.ready
