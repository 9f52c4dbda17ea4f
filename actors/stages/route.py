"""Route: records to the log partitions of their buckets, as entries of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from actors.stages.bad import Slot
from cluster import batch
from cluster.errors import Rejected
from cluster.model import Kind, Record
from cluster.shard_map import partition_of
from cluster.stores.log import Append

_FLOOR = int(Kind.FLOOR)


class Routed(NamedTuple):
    """Entries to append, and how many records they hold."""

    entries: list[Append]
    records: int


def route(slots: Sequence[Slot[Record]], partitions: int, entry_bytes: int) -> Routed:
    """Entries by partition, ascending; within a partition records keep their order.

    Raises:
        Rejected: one record is larger than an entry may be; `place` bounds records so that the defaults prevent it.
    """
    groups: dict[int, list[Record]] = {}
    for slot in slots:
        if type(slot) is Record:
            partition = partition_of(slot[2], partitions)
            if (group := groups.get(partition)) is None:
                groups[partition] = [slot]
            else:
                group.append(slot)
    entries: list[Append] = []
    for partition in sorted(groups):
        entries += entries_of(partition, groups[partition], entry_bytes)
    return Routed(entries, sum(entry.records for entry in entries))


def entries_of(partition: int, records: list[Record], entry_bytes: int) -> list[Append]:
    """Records of one partition as one entry, or as several where one would be too large. Floors are no records."""
    data = batch.encode(records)
    if len(data) <= entry_bytes:
        return [Append(partition, data, sum(r[3] < _FLOOR for r in records))]
    if len(records) == 1:
        raise Rejected(f"one record takes {len(data):,} bytes: raise log.entry_bytes ({entry_bytes:,})")
    half = len(records) // 2
    return entries_of(partition, records[:half], entry_bytes) + entries_of(partition, records[half:], entry_bytes)
