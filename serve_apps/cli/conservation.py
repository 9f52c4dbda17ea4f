"""Conservation: every record of the log has exactly one outcome in the shards, and every load is in the log.

Counted apart, then compared, each in both directions:

    log partition: records in the lake's files and in the log's entries behind them, up to the shards' cursors
                 = records as the lake and the entries were told     = records that the shards' cursors counted
    shard:         records = applied + duplicate + stale, by cursor and by source
    epoch:         records of the log by (tenant, source, epoch)     = outcomes of all shards
    load:          what it acknowledged = different records of its epoch in the log, dead letters apart
    stream:        what it acknowledged ≤ records of its source in the log

A bad record is a dead letter, and was never appended. Floors and priorities are no records.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import Unavailable
from cluster.stores.log import LogGap

if TYPE_CHECKING:
    from cluster.stores.graph import Cursor, GraphShard, Outcomes
    from cluster.stores.lake import Lake
    from cluster.stores.log import EventLog
    from serve_apps.cli.load_balance import LoadBalance
    from serve_apps.cli.log_counts import Counted, Epoch
    from serve_apps.cli.session import Session
    from serve_apps.cli.stream_balance import StreamBalance

_READ_ENTRIES, _READ_BYTES, _PAUSE_S = 256, 16 << 20, 0.2


@dataclass(frozen=True, slots=True)
class PartitionBalance:
    """One log partition up to entry `at`: records found in lake and log, records as told, records shards counted."""

    partition: int
    at: int
    found: int
    logged: int
    counted: int

    @property
    def holds(self) -> bool:
        """Whether they are equal."""
        return self.found == self.logged == self.counted


@dataclass(frozen=True, slots=True)
class ShardBalance:
    """One shard: records that its cursors counted, their outcomes, and the same outcomes summed by source."""

    shard: str
    records: int
    applied: int
    duplicate: int
    stale: int
    by_source: int

    @property
    def holds(self) -> bool:
        """Whether each record has one outcome, and each outcome one source."""
        return self.records == self.applied + self.duplicate + self.stale == self.by_source


@dataclass(frozen=True, slots=True)
class EpochBalance:
    """One epoch of a source: its records in the log, and the outcomes that all shards together counted."""

    tenant: str
    source: str
    epoch: int
    logged: int
    outcomes: int

    @property
    def holds(self) -> bool:
        """Whether each record has one outcome."""
        return self.logged == self.outcomes


@dataclass(frozen=True, slots=True)
class Balance:
    """The whole audit."""

    partitions: tuple[PartitionBalance, ...]
    shards: tuple[ShardBalance, ...]
    epochs: tuple[EpochBalance, ...]
    loads: tuple[LoadBalance, ...]
    streams: tuple[StreamBalance, ...]
    dead_letters: Mapping[str, Mapping[str, int]]

    @property
    def holds(self) -> bool:
        """Whether everything balances."""
        every = (self.partitions, self.shards, self.epochs, self.loads, self.streams)
        return all(row.holds for rows in every for row in rows)

    def as_json(self) -> dict[str, Any]:
        """Plain values, each row with `holds`."""
        rows = {name: [{**asdict(row), "holds": row.holds} for row in getattr(self, name)]
                for name in ("partitions", "shards", "epochs", "loads", "streams")}  # fmt: skip
        return {"holds": self.holds, **rows, "dead_letters": self.dead_letters}


def audit(session: Session, deadline_s: float = 60.0) -> Balance:
    """Count everything at one moment at which no shard is behind the log. Changes nothing.

    Reads the whole lake, a log partition at a time, whose rows are in memory together; of a log that was given another
    number of partitions, those together that share a bucket.

    Raises:
        Unavailable: shards stay behind for longer than `deadline_s`, or do not answer. LogGap: neither log nor lake has
        what was appended.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            return _counted(session, max(0.0, end - time.monotonic()))
        except LogGap as error:
            if not _in_the_lake_by_now(session, error):
                raise
            if time.monotonic() >= end:
                raise Unavailable(f"the lake went on while this was counted; try again ({error})", 1.0) from error


def _in_the_lake_by_now(session: Session, gap: LogGap) -> bool:
    """Whether the lake took, while it was counted, what the log then let go."""
    lake = session.stack.lake_address.find()
    if lake is None:
        return False
    with closing(lake):
        return lake.positions().of(gap.partition).number >= gap.first_available - 1


def _counted(session: Session, deadline_s: float) -> Balance:
    import polars as pl

    from serve_apps.cli.load_balance import load_balances
    from serve_apps.cli.log_counts import Counted, count, rows_of
    from serve_apps.cli.stream_balance import stream_balances, stream_counts

    acknowledged = stream_counts(session.control)
    cursors, outcomes = settled(session, deadline_s)
    current, control, lake = session.stack.current_map(), session.control, session.stack.lake_address.find()
    tenants = control.sources.tenants()
    places = [place for tenant in tenants for place in control.dead_letters.places(tenant)]
    counted: dict[Epoch, Counted] = defaultdict(Counted)
    partitions: list[PartitionBalance] = []
    with closing(lake) if lake else nullcontext():
        version = lake.version() if lake else None
        for group in current.groups():
            found = []
            for p in group:
                mine = [cursors[s][p] for s in current.shards_of_partition(p) if p in cursors[s]]
                at = max((cursor.at for cursor in mine), default=0)
                rows = rows_of(session.log, lake, version, p, at)
                told, by_shards = logged(session.log, lake, version, p, at), sum(cursor.records for cursor in mine)
                partitions.append(PartitionBalance(p, at, len(rows), told, by_shards))
                found += [rows] if len(rows) else []
            for key, more in count(pl.concat(found, how="vertical"), places).items() if found else ():
                counted[key] += more
    shards = tuple(shard_balance(s, cursors[s].values(), outcomes[s].values()) for s in sorted(cursors))
    epochs = tuple(epoch_balances(counted, together(outcomes.values())))
    loads = tuple(load_balances(control, tenants, counted, places, session.settings.ingest.batch_records))
    letters = {tenant: control.dead_letters.facets(tenant)["state"] for tenant in tenants}
    streams = tuple(stream_balances(control, acknowledged, counted))
    return Balance(tuple(sorted(partitions, key=lambda one: one.partition)), shards, epochs, loads, streams, letters)


def settled(
    session: Session, deadline_s: float
) -> tuple[dict[str, dict[int, Cursor]], dict[str, dict[Epoch, Outcomes]]]:
    """Cursors and outcomes of each shard, read while they stood still at the log's ends. Raises Unavailable."""
    end = time.monotonic() + deadline_s
    while True:
        ends = session.log.ends()
        cursors = {name: shard.cursors() for name, shard in session.shards.items()}
        outcomes = {name: shard.outcomes() for name, shard in session.shards.items()}
        again = {name: shard.cursors() for name, shard in session.shards.items()}
        if cursors == again and session.log.ends() == ends and _at_ends(session, cursors, ends):
            return cursors, outcomes
        if time.monotonic() >= end:
            raise Unavailable("records are still on their way; stop the sources, or try again when `lag` is empty", 5.0)
        time.sleep(_PAUSE_S)


def _at_ends(session: Session, cursors: Mapping[str, Mapping[int, Cursor]], ends: Mapping[int, int]) -> bool:
    current = session.stack.current_map()
    needed = ((name, p) for name in cursors for p in current.partitions_of(name) if ends.get(p, 0))
    return all(p in cursors[name] and cursors[name][p].at == ends[p] for name, p in needed)


def together(parts: Iterable[Mapping[Epoch, Outcomes]]) -> dict[Epoch, Outcomes]:
    """Outcomes of all shards, added up."""
    from cluster.stores.graph import Outcomes

    total: defaultdict[Epoch, Outcomes] = defaultdict(Outcomes)
    for part in parts:
        for key, one in part.items():
            total[key].applied += one.applied
            total[key].duplicate += one.duplicate
            total[key].stale += one.stale
    return dict(total)


def outcomes_of(shards: Iterable[GraphShard]) -> dict[Epoch, Outcomes]:
    """What became of all records so far, by (tenant, source, epoch)."""
    return together(shard.outcomes() for shard in shards)


def shard_balance(shard: str, cursors: Iterable[Cursor], outcomes: Iterable[Outcomes]) -> ShardBalance:
    """A shard's sums."""
    rows = list(cursors)
    return ShardBalance(
        shard, sum(c.records for c in rows), sum(c.applied for c in rows), sum(c.duplicate for c in rows),
        sum(c.stale for c in rows), sum(one.total for one in outcomes),
    )  # fmt: skip


def epoch_balances(counted: Mapping[Epoch, Counted], outcomes: Mapping[Epoch, Outcomes]) -> Iterable[EpochBalance]:
    """Every epoch that the log or a shard knows of."""
    for key in sorted(counted.keys() | outcomes.keys()):
        found, total = counted.get(key), outcomes.get(key)
        row = EpochBalance(*key, found.records if found else 0, total.total if total else 0)
        if row.logged or row.outcomes:
            yield row


def logged(log: EventLog, lake: Lake | None, version: int | None, partition: int, upto: int) -> int:
    """Records in entries 1 … upto of a log partition. Raises Unavailable while the lake is ahead of what is asked."""
    at, records = _in_lake(lake, version, partition) if lake else (0, 0)
    if at > upto:
        raise Unavailable(f"log partition {partition}: the lake went on while this was counted; try again", 1.0)
    while at < upto:
        for entry in log.read(partition, at, _READ_ENTRIES, _READ_BYTES):
            if entry.number > upto:
                return records
            at, records = entry.number, records + entry.records
    return records


def _in_lake(lake: Lake, version: int | None, partition: int) -> tuple[int, int]:
    """(last entry of a log partition that the lake has, records up to it)."""
    at = lake.positions(version).of(partition)
    return at.number, at.records
