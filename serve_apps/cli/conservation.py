"""Conservation: every record of the log has exactly one outcome in the shards. Counted apart, then compared.

    log partition: records up to the shards' cursor (the lake's cumulative count, and log entries from there)
                 = records that the shards' cursors counted on the way
    shard:         records = applied + duplicate + stale, by cursor and by source
    loads:         what was acknowledged <= outcomes of that source

A record that is no record is a dead letter, and was never appended. Floors and priorities are no records.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from cluster.stores.control import ControlStore
    from cluster.stores.control_loads import Load
    from cluster.stores.falkor_shard import FalkorShard
    from cluster.stores.graph import Cursor, Outcomes
    from cluster.stores.lake import Lake
    from cluster.stores.log import EventLog
    from serve_apps.cli.session import Session

Epoch = tuple[str, str, int]
_READ_ENTRIES, _READ_BYTES, _PAUSE_S = 256, 16 << 20, 0.2
LOADS = 1_000_000


@dataclass(frozen=True, slots=True)
class PartitionBalance:
    """One log partition up to entry `at`: records in the log, and records that shards counted."""

    partition: int
    at: int
    logged: int
    counted: int

    @property
    def holds(self) -> bool:
        """Whether they are equal."""
        return self.logged == self.counted


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
class LoadBalance:
    """The loads of one source: records acknowledged, and the outcomes of all records of the source.

    There may be more outcomes: of pushes, of what an undo said again, of what a worker appended twice since it died.
    """

    tenant: str
    source: str
    loads: int
    acked: int
    outcomes: int
    dead: int

    @property
    def holds(self) -> bool:
        """Whether nothing that was acknowledged is without an outcome."""
        return self.acked <= self.outcomes


@dataclass(frozen=True, slots=True)
class Balance:
    """The whole audit."""

    partitions: tuple[PartitionBalance, ...]
    shards: tuple[ShardBalance, ...]
    loads: tuple[LoadBalance, ...]
    dead_letters: Mapping[str, Mapping[str, int]]

    @property
    def holds(self) -> bool:
        """Whether everything balances."""
        return all(row.holds for rows in (self.partitions, self.shards, self.loads) for row in rows)

    def as_json(self) -> dict[str, Any]:
        """Plain values, each row with `holds`."""
        rows = {name: [{**asdict(row), "holds": row.holds} for row in getattr(self, name)]
                for name in ("partitions", "shards", "loads")}  # fmt: skip
        return {"holds": self.holds, **rows, "dead_letters": self.dead_letters}


def audit(session: Session, deadline_s: float = 60.0) -> Balance:
    """Count everything at one moment at which no shard is behind the log. Changes nothing.

    Raises:
        Unavailable: shards stay behind for longer than `deadline_s`, or do not answer.
    """
    cursors, outcomes = settled(session, deadline_s)
    current = session.stack.current_map()
    lake = _lake(session)
    with closing(lake) if lake else nullcontext():
        partitions = tuple(
            _partition(session.log, lake, p, [cursors[s][p] for s in current.shards_of_partition(p) if p in cursors[s]])
            for p in range(current.partitions)
        )
    shards = tuple(shard_balance(s, cursors[s].values(), outcomes[s].values()) for s in sorted(cursors))
    control = session.control
    tenants = control.sources.tenants()
    letters = {tenant: control.dead_letters.facets(tenant)["state"] for tenant in tenants}
    return Balance(partitions, shards, tuple(load_balances(control, tenants, together(outcomes.values()))), letters)


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


def outcomes_of(shards: Iterable[FalkorShard]) -> dict[Epoch, Outcomes]:
    """What became of all records so far, by (tenant, source, epoch)."""
    return together(shard.outcomes() for shard in shards)


def shard_balance(shard: str, cursors: Iterable[Cursor], outcomes: Iterable[Outcomes]) -> ShardBalance:
    """A shard's sums."""
    rows = list(cursors)
    return ShardBalance(
        shard, sum(c.records for c in rows), sum(c.applied for c in rows), sum(c.duplicate for c in rows),
        sum(c.stale for c in rows), sum(one.total for one in outcomes),
    )  # fmt: skip


def load_balances(
    control: ControlStore, tenants: Iterable[str], outcomes: Mapping[Epoch, Outcomes]
) -> Iterable[LoadBalance]:
    """Every source that has loads."""
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for (tenant, source, _), one in outcomes.items():
        totals[tenant, source] += one.total
    for tenant in tenants:
        by_source: defaultdict[str, list[Load]] = defaultdict(list)
        for load in control.loads.list(tenant, LOADS):
            by_source[load.source].append(load)
        for source, loads in sorted(by_source.items()):
            acked, dead = sum(load.acked for load in loads), sum(load.dead for load in loads)
            yield LoadBalance(tenant, source, len(loads), acked, totals[tenant, source], dead)


def _partition(log: EventLog, lake: Lake | None, partition: int, cursors: Sequence[Cursor]) -> PartitionBalance:
    at = max((cursor.at for cursor in cursors), default=0)
    return PartitionBalance(partition, at, logged(log, lake, partition, at), sum(c.records for c in cursors))


def logged(log: EventLog, lake: Lake | None, partition: int, upto: int) -> int:
    """Records in entries 1 … upto of a log partition. Raises Unavailable while the lake is ahead of what is asked."""
    at, records = _in_lake(lake, partition) if lake else (0, 0)
    if at > upto:
        raise Unavailable(f"log partition {partition}: the lake went on while this was counted; try again", 1.0)
    while at < upto:
        for entry in log.read(partition, at, _READ_ENTRIES, _READ_BYTES):
            if entry.number > upto:
                return records
            at, records = entry.number, records + entry.records
    return records


def _in_lake(lake: Lake, partition: int) -> tuple[int, int]:
    """(last entry of a log partition that the lake has, records up to it)."""
    at = lake.positions().of(partition)
    return at.number, at.records


def _lake(session: Session) -> Lake | None:
    from cluster.stores.lake import Lake

    try:
        return Lake.open(session.state_dir / "lake", create=False, settings=session.settings.lake)
    except NotFound:
        return None
