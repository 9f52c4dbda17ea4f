"""Export and hash of hot shards: the visible graph as the shards show it, and the state that they keep."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.fold import Floors, Merged, Priorities, export_line, floor_line, priority_line, state_line, thing_of
from cluster.stores.graph import GraphShard


def export_lines(shards: Iterable[GraphShard], tenant: str | None = None, case: str | None = None) -> list[str]:
    """Sorted canonical lines of what is visible.

    Args:
        tenant, case: only theirs; None for all.
    """
    lines: list[str] = []
    for shard in shards:
        for t, c in shard.cases():
            if tenant in (None, t) and case in (None, c):
                for r in shard.shown(t, c):
                    merged = Merged(r.a_type, r.a_id, r.b_type, r.b_id, r.event_time, r.props, r.claim)
                    lines.append(export_line(thing_of(r), merged))
    return sorted(lines)


def state_lines(shards: Iterable[GraphShard], tenant: str | None = None) -> list[str]:
    """Sorted canonical lines of every register, tombstone, floor and priority; each once, wherever it is kept."""
    lines: set[str] = set()
    for shard in shards:
        for t, c in shard.cases():
            if tenant in (None, t):
                lines.update(state_line(r) for thing in shard.things(t, c) for r in thing.registers.values())
        floors, priorities = Floors(), Priorities()
        for t, source, type_, version, _ in shard.floors():
            if tenant in (None, t):
                floors.raise_to(t, source, type_, version)
        for t, source, stamp, priority, _ in shard.priorities():
            if tenant in (None, t):
                priorities.set(t, source, stamp, priority)
        lines.update(floor_line(*item) for item in floors.items())
        lines.update(priority_line(*item) for item in priorities.items())
    return sorted(lines)
