"""`lag`: how far each shard is behind the log, by partition, in records and seconds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from serve_apps.cli.canaries import canaries, show_canaries
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import verb
from serve_apps.cli.workers import show_workers, stream_workers

if TYPE_CHECKING:
    from cluster.stores.log import EventLog

COUNTED_ENTRIES, _COUNTED_BYTES = 512, 64 << 20


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far one shard is behind in one log partition.

    Args:
        at, end: last entry applied, last entry there is.
        records: not yet applied; of the first COUNTED_ENTRIES entries at most, then `at_least` is true.
        seconds: age of the oldest entry that is not applied; 0 where there is none.
    """

    shard: str
    partition: int
    at: int
    end: int
    records: int
    at_least: bool
    seconds: float


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    verb(app, "lag", rich_help_panel="Running it")(lag)


def lag(
    session: Session,
    every: Annotated[bool, typer.Option("--all", help="Also partitions that are not behind.")] = False,
) -> None:
    """Show how far each shard is behind the log, in records and seconds, and how long its last canary took."""
    found = measure(session)
    behind = [one for one in found if one.end > one.at]
    workers, sung = stream_workers(session), canaries(session)
    session.output.result({
        "lag": [asdict(one) for one in found], "records": sum(one.records for one in behind), "stream_workers": workers,
        "canaries": sung,
    })  # fmt: skip
    rows = [
        (one.shard, str(one.partition), one.at, one.end, f"{'≥ ' if one.at_least else ''}{one.records:,}", one.seconds)
        for one in (found if every else behind)
    ]
    if rows or every:
        session.output.table("lag", ("shard", "partition", "applied to", "log's end", "records", "seconds"), rows)
    else:
        session.output.text(f"nothing is behind: {len(found)} partitions, {sum(one.at for one in found):,} log entries")
    show_canaries(session.output, sung)
    show_workers(session.output, workers)


def measure(session: Session) -> list[PartitionLag]:
    """The lag of every shard in every partition that has entries for it, by shard and partition."""
    current, ends = session.stack.current_map(), session.log.ends()
    found = []
    for shard_id, shard in session.shards.items():
        cursors = shard.cursors()
        for partition in current.partitions_of(shard_id):
            at = cursors[partition].at if partition in cursors else 0
            found.append(_measured(session.log, shard_id, partition, at, ends.get(partition, 0)))
    return found


def _measured(log: EventLog, shard: str, partition: int, at: int, end: int) -> PartitionLag:
    if end <= at:
        return PartitionLag(shard, partition, at, end, 0, False, 0.0)
    start = max(at, log.begins()[partition] - 1)
    entries = log.read(partition, start, COUNTED_ENTRIES, _COUNTED_BYTES)
    if not entries:  # trimmed since, so it has been applied
        return PartitionLag(shard, partition, at, end, 0, False, 0.0)
    seconds = max(0.0, time.time() - entries[0].appended_ms / 1000)
    cut = start > at or entries[-1].number < end
    return PartitionLag(shard, partition, at, end, sum(e.records for e in entries), cut, round(seconds, 2))
