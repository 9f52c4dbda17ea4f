"""Counts of a shard that has taken entries which are lost: what it counted there is taken off, once.

A cursor between a seam's `kept` and `resumed` stands among lost entries: its shard's counts have records that the log
does not hold any more. Their facts are in the log again, behind `resumed`, and are counted there. So the cursor steps
to `resumed`, and what lake and log do not hold up to `kept` is taken off, in the same query: whoever comes to the shard
again finds the cursor behind the seam, and a shard that comes back older is counted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from actors.log_facts import known_facts, reaches_back
from cluster.batch import Frame
from cluster.fold import Outcome
from cluster.model import Kind
from cluster.stores.graph import Cursor, CursorMove, Fence, GraphShard, Outcomes, WriteCounts
from cluster.stores.log import EventLog, Seam
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

LOG = Log("intelgraph.shard")


def lost_seams(log: EventLog, cursors: Mapping[int, Cursor]) -> dict[int, Seam]:
    """The seam of each partition whose cursor stands among lost entries."""
    return {
        partition: seam
        for generation in log.generations
        for partition, seam in generation.seams.items()
        if partition in cursors and seam.is_lost(cursors[partition].at)
    }


def step_over_lost(
    shard: GraphShard, log: EventLog, fence: Fence, owns: Callable[[int], bool], open_lake: Callable[[], Lake]
) -> None:
    """Step over lost entries, and take off what was counted there. Safe to call twice.

    Where lake and log do not reach back to the beginning nothing can be taken off: then the audit shows the difference.
    """
    cursors = {p: c for p, c in shard.cursors().items() if p in fence.partitions}
    seams = lost_seams(log, cursors)
    if not seams:
        return
    with open_lake() as lake:
        if all(reaches_back(log, lake, p) for p in cursors):
            rows = {p: _counted(log, lake, p, cursors[p], seams.get(p), owns) for p in cursors}
        else:
            rows = {}
    records = {p: rows[p].height - cursors[p].records if rows else 0 for p in seams}
    counts = surplus(shard.outcomes(), pl.concat(rows.values())) if rows else WriteCounts()
    taken = counts.all
    if taken.total != sum(records.values()):  # counts that contradict each other are left for the audit to show
        LOG.warning("lost_counts_contradict", by_source=taken.total, by_partition=sum(records.values()))
        counts, taken, records = WriteCounts(), Outcomes(), dict.fromkeys(seams, 0)
    moves = [CursorMove(p, cursors[p].at, seam.resumed, records[p]) for p, seam in sorted(seams.items())]
    moves[0] = moves[0]._replace(applied=taken.applied, duplicate=taken.duplicate, stale=taken.stale)
    shard.advance(fence, moves, counts)
    LOG.warning("shard_stepped_over_lost_entries", partitions=sorted(seams), records=-taken.total)


def _counted(
    log: EventLog, lake: Lake, partition: int, cursor: Cursor, seam: Seam | None, owns: Callable[[int], bool]
) -> Frame:
    """Records that the shard has counted and the log still holds."""
    rows = known_facts(log, lake, partition, seam.kept if seam else cursor.at).filter(pl.col("kind") < Kind.FLOOR)
    mine = [bucket for bucket in rows["bucket"].unique().to_list() if owns(bucket)]
    return rows.filter(pl.col("bucket").is_in(mine))


def surplus(outcomes: Mapping[tuple[str, str, int], Outcomes], rows: Frame) -> WriteCounts:
    """By source, what was counted and is not among the rows, as negative counts; of what was applied first."""
    there = WriteCounts()
    there.count_each(rows, [int(Outcome.NEW)] * rows.height)
    counts = WriteCounts()
    for key, had in outcomes.items():
        left = had.total - there.by_source[key].total if key in there.by_source else had.total
        if not left:
            continue
        applied = min(left, had.applied)
        duplicate = min(left - applied, had.duplicate)
        counts.by_source[key] = Outcomes(-applied, -duplicate, -(left - applied - duplicate))
    return counts
