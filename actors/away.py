"""Shards that did not answer when the log was compared at a start: how they are met when they come back.

    a start without them ─► the log's ends are noted ─► … ─► it comes back: behind those ends ─► goes on
                                                                           ahead of them  ─► AheadOfLog, until it is
                                                             rebuilt: what it alone holds is said again before that

Who is ahead of the ends has read entries that the log lost, and whose numbers stand for others by now: it would pass
over these. The notes are in the audit, as an operator's word is; of several the first counts, until it came back. The
lake needs none: it says before each commit how far that goes, and whatever was said so far counts as read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from actors.log_facts import COLUMNS, KEY, facts_of_shard, known_beside, pages
from actors.stages.route import entries_of
from cluster import batch
from cluster.errors import Corrupt
from cluster.stores.control_audit import INSTALLATION, Audit
from cluster.stores.graph import GraphShard
from cluster.stores.log import EventLog
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from actors.stack import Stack

LOG = Log("intelgraph.log")
OPENED_WITHOUT, CAME_BACK = "log.opened_without", "log.shard_came_back"
_BY = "system"


class AheadOfLog(Corrupt):
    """A shard has read what the log lost while the shard was away.

    Args:
        at: log partition → (last entry that the log had when it was opened, the shard's position).
    """

    def __init__(self, shard_id: str, at: Mapping[int, tuple[int, int]]) -> None:
        ranges = ",".join(f"{partition}:{end + 1}-{number}" for partition, (end, number) in sorted(at.items()))
        super().__init__(
            f"{shard_id} was away when the event log was opened, and has read entries {ranges} (partition:first-last)"
            f" that the log had lost; others have these numbers by now. Say `intelgraph shards rebuild {shard_id}`:"
            " what it alone holds is said again, then it reads everything anew"
        )
        self.shard_id, self.at = shard_id, at

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.shard_id, self.at)


def note_away(audit: Audit, shards: Collection[str], ends: Mapping[int, int], now: float) -> None:
    """The log is opened, and ends so, and these shards have not been asked. Safe to call twice."""
    for shard_id in sorted(shards):
        if ends_without(audit, shard_id) is None:
            LOG.warning("log_opened_without", shard=shard_id)
            detail = {"ends": {str(partition): end for partition, end in ends.items()}}
            audit.append(INSTALLATION, _BY, OPENED_WITHOUT, shard_id, now, detail, later=True)


def ends_without(audit: Audit, shard_id: str) -> dict[int, int] | None:
    """The log's ends when it was first opened without a shard that has not come back since; None: it has not been."""
    noted: dict[int, int] | None = None
    for entry in audit.every(INSTALLATION):
        if entry.subject == shard_id and entry.action == CAME_BACK:
            noted = None
        elif entry.subject == shard_id and entry.action == OPENED_WITHOUT and noted is None:
            noted = {int(partition): int(end) for partition, end in entry.detail["ends"].items()}
    return noted


def came_back(audit: Audit, shard_id: str, now: float) -> None:
    """From now on what was noted of it counts no more. Safe to call twice."""
    if ends_without(audit, shard_id) is not None:
        audit.append(INSTALLATION, _BY, CAME_BACK, shard_id, now)


def meet(audit: Audit, shard_id: str, shard: GraphShard, partitions: Collection[int], now: float) -> None:
    """Nothing, if a shard may be written to: before its writer goes on. Safe to call twice.

    Raises:
        AheadOfLog: it has read what the log has lost.
    """
    ends = ends_without(audit, shard_id)
    if ends is None:
        return
    at = {p: cursor.at for p, cursor in shard.cursors().items() if p in partitions}
    if ahead := {p: (ends[p], number) for p, number in at.items() if number > ends.get(p, number)}:
        raise AheadOfLog(shard_id, ahead)
    came_back(audit, shard_id, now)


def say_again_what_it_alone_holds(stack: Stack, log: EventLog, shard_id: str) -> int:
    """Appends the registers, floors and priorities of a shard that neither log nor lake has; returns how many.

    To be called while its writer pauses. Safe to call twice: they are in the log then.
    """
    current, said = stack.current_map(), 0
    with stack.open_lake() as lake, closing(stack.open_shard(shard_id)) as shard:
        for partition in current.appended_for(shard_id):
            known = known_beside(log, lake, current, partition)
            for page in pages(facts_of_shard(shard, current, shard_id, partition)):
                alone = batch.frame_of(page).join(known, on=list(KEY), how="anti").unique()
                if alone.height:
                    log.append(entries_of(partition, batch.records_of(alone), stack.settings.log.entry_bytes))
                    known, said = pl.concat([known, alone.select(COLUMNS)]), said + alone.height
    LOG.warning("facts_said_again", shard=shard_id, facts=said)
    return said
