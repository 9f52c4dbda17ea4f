"""Floors and priorities on a shard: what they do to registers that are there already.

Records that come later meet the floor in the fold; here the older ones are taken away, case by case, and things
of several sources are merged anew. Every step may be done again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from cluster.fold import Floors, Priorities
from cluster.model import OVERLAY_PREFIX, Record
from cluster.stores.graph import Fence, GraphShard, StoredThing, merged_record

_PAGE = 1_000


def _replace(shard: GraphShard, fence: Fence, things: Iterable[StoredThing], priorities: Priorities) -> None:
    rest = iter(things)
    while page := list(islice(rest, _PAGE)):
        shard.replace(fence, [(t, merged_record(t, priorities)) for t in page])


def hide_below(shard: GraphShard, fence: Fence, floor: Record, floors: Floors, priorities: Priorities) -> None:
    """Take away every register of the floor's source that is older than it. Safe to call twice."""
    if floor.source.startswith(OVERLAY_PREFIX):
        shard.forget_overlays(fence, floor)
        return
    for tenant, case in shard.cases():
        if tenant != floor.tenant:
            continue
        hidden = []
        for thing in shard.touched(tenant, case, floor.source, floor.version):
            held = thing.registers.get(floor.source)
            if held is not None and floors.hides(held):
                left = {s: r for s, r in thing.registers.items() if s != floor.source}
                hidden.append(thing._replace(registers=left))
        _replace(shard, fence, hidden, priorities)


def merge_anew(shard: GraphShard, fence: Fence, priority: Record, priorities: Priorities) -> None:
    """Merge every thing that the source shares with others. Safe to call twice."""
    for tenant, case in shard.cases():
        if tenant == priority.tenant:
            shared = [t for t in shard.touched(tenant, case, priority.source, "") if priority.source in t.registers]
            _replace(shard, fence, shared, priorities)
