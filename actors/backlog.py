"""How many records of the log a shard's writer has before it, by partition.

What was appended less what the writer has gone past. A cursor counts the shard's own records alone; of a partition that
several shards have buckets in, or that a shard took over at its end, it does not say how many it has gone past. There
that is taken from how many records an entry has on average, until the writer has once been at the end.
"""

from __future__ import annotations

from collections.abc import Collection

from actors.shard_writer import ShardWriter
from cluster.stores.log import EventLog


class Backlog:
    """Of one writer.

    Args:
        shared: partitions in which other shards have buckets too.
    """

    def __init__(self, log: EventLog, writer: ShardWriter, shared: Collection[int]) -> None:
        self._log, self._writer = log, writer
        self._unknown = set(shared)

    def records(self) -> dict[int, int]:
        """Records behind each position, whichever shard they are for; at least 1 where there is an entry.

        For the thread that turns the writer. Raises what the log raises.
        """
        positions, passed = self._writer.positions, self._writer.records_passed
        appended = self._log.records()  # first: then whoever has the ends of afterwards has gone past all of these
        ends = self._log.ends()
        found = {}
        for partition, at in positions.items():
            total, end = appended.get(partition, 0), ends.get(partition, 0)
            if at >= end:
                passed[partition] = total
                self._unknown.discard(partition)
            elif partition in self._unknown:
                passed[partition] = max(passed[partition], total * at // end)
                self._unknown.discard(partition)
            found[partition] = max(1, total - passed[partition]) if at < end else 0
        return found
