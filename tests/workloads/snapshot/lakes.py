"""Filling lakes for tests of snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import batch
from cluster.model import Record
from cluster.stores.lake import Lake, LakeEntry, Positions

PARTITIONS = 3


def fill(lake: Lake, at: Positions, records: Sequence[Record]) -> Positions:
    """Appends records as entries of a few log partitions, in one commit."""
    entries = []
    for partition in range(PARTITIONS):
        mine = [record for record in records if record.bucket % PARTITIONS == partition]
        if mine:
            entries.append(LakeEntry(partition, at.of(partition).number + 1, batch.to_arrow(mine)))
    return lake.append(entries, at)
