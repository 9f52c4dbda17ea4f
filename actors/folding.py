"""What a shard writer works out about a batch before and after the shard sees it: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from cluster.batch import Frame, Mask
from cluster.fold import Floors, Outcome, compare, is_conflict
from cluster.model import Record
from cluster.stores.graph import Fence, StoredThing, WriteCounts

_THING = ("tenant", "case", "kind", "type", "id")


def alone(rows: Frame, floors: Floors) -> Mask:
    """Whether a row is the batch's only one of its thing and no floor of its source is known: nothing to fold."""
    once: Mask = ~rows.select(pl.struct(_THING).is_duplicated()).to_series().to_numpy()  # a copy: it may be changed
    sources = {(tenant, source) for (tenant, source, _), _ in floors.items()}
    if not sources:
        return once
    floored = [pair in sources for pair in rows.select("tenant", "source").iter_rows()]
    once &= ~np.array(floored, bool)
    return once


def lanes_of(fence: Fence, most: int) -> list[Fence]:
    """The fence's partitions dealt to lanes."""
    count = max(1, min(most, len(fence.partitions)))
    return [replace(fence, partitions=fence.partitions[lane::count]) for lane in range(count)]


def split_by_register(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """(things with one register in this batch, records of things with several): a query takes one row a thing."""
    keys = [(r[0], r[1], r[3], r[5], r[6], r[11] if r.is_overlay else "") for r in records]
    many = {key for key, number in Counter(keys).items() if number > 1}
    pairs = list(zip(keys, records, strict=True))
    return [r for key, r in pairs if key not in many], [r for key, r in pairs if key in many]


def resolve(
    stored: StoredThing | None, records: Sequence[Record], floors: Floors, counts: WriteCounts
) -> tuple[StoredThing, bool]:
    """Fold records of one thing into its registers; counts what became of each.

    Returns:
        all registers of the thing, and whether any is another than before.
    """
    first = records[0]
    registers = dict(stored.registers) if stored else {}
    changed = False
    for record in records:
        old = registers.get(record.source)
        stamp = old.stamp if old else None
        outcome = Outcome.STALE if floors.hides(record) else compare(stamp, record.stamp)
        if is_conflict(stamp, record.stamp):
            counts.conflicts[(record.tenant, record.source)] += 1
        counts.count(record, outcome)
        if outcome in (Outcome.NEW, Outcome.NEWER):
            registers[record.source] = record
            changed = True
    return StoredThing(first.kind, first.tenant, first.case, first.type, first.id, registers), changed
