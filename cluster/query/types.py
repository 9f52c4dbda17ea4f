"""Which relationship types a hop names, so that it costs little however many types the graph has.

A shard's graph is shared by tenants, and FalkorDB looks for each pair of neighbours into every relationship type that a
hop may take: an untyped one into all of the graph's. A hop that names types costs each entity that it starts from about
as much a type as 25 of these look-ups, whether it has such relationships or not. So hops are untyped, which is always
right, except in graphs of many types:

from hubs         the shard is asked first which types the hubs have; these are named
from very many    it is asked which types some of them have; these are named for each entity whose degree in these types
                  is its whole degree, so that it has no other; the others' hop is untyped

No fact is hidden by that: what is named is read from the shard's own graph within the question, after what `wait_for`
names is applied; no other store has a say. How many types the graph has decides the plan and nothing else,
so it may be old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from cluster.query import cypher
from cluster.query.hot import Shard

GROUP = 32
"""Types of one statement: each pair of neighbours that it meets costs as many look-ups."""
LOOK_UPS = 30_000
"""So many are not worth another statement; about 4 ms."""
BROAD = 10 * LOOK_UPS
"""Over so many, a few statements to find out which types to name cost little beside them."""
SAMPLE = 20
HUB = 200
"""Asking which types an entity has costs as much as 20 of its relationships in an untyped hop."""
MANY = 32
"""Over so many types of a graph, a relationship between two entities is looked for only where there is one."""
TOTAL_S = 30.0
Types = tuple[str, ...]


class TypeTotals:
    """How many types the graphs of shards have. Safe for several threads: what it keeps is replaced whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._totals: dict[str, tuple[int, float]] = {}

    def total(self, shard: Shard) -> int:
        """Types of a shard's graph, at most `TOTAL_S` old; at least 1."""
        total, read_at = self._totals.get(shard.name, (0, float("-inf")))
        if self._clock() - read_at > TOTAL_S:
            rows = shard.read(cypher.count_types())
            total = int(rows[0][0]) if rows else 0
            self._totals[shard.name] = (total, self._clock())
        return max(1, total)


def few(total: int) -> int:
    """Up to which degree of one entity a hop is untyped in a graph of so many types. Pure."""
    return LOOK_UPS // total


def are_many(total: int) -> bool:
    """Whether pairs of a page are better met without a name first. Pure."""
    return total > MANY


def split(degrees: Mapping[str, int], total: int) -> tuple[list[str], list[str]]:
    """Entities from which a hop is untyped, and hubs whose types are asked for first. Pure.

    Args:
        degrees: by key, of all their relationships.
        total: types of the graph.
    """
    if sum(degrees.values()) * total <= LOOK_UPS:
        return list(degrees), []
    return [k for k, n in degrees.items() if n <= HUB], [k for k, n in degrees.items() if n > HUB]


def is_broad(degrees: Mapping[str, int], total: int) -> bool:
    """Whether a hop from these entities is worth finding out which types to name. Pure."""
    return sum(degrees.values()) * total > BROAD


def sample(degrees: Mapping[str, int]) -> list[str]:
    """Some of them, from all over. Pure."""
    keys = list(degrees)
    return keys[:: max(1, len(keys) // SAMPLE)][:SAMPLE]


def grouped(types: Iterable[str], wanted: Types) -> list[Types]:
    """Those that are wanted (all, where none is named), some at a time. Pure."""
    names = sorted(name for name in types if not wanted or name in wanted)
    return [tuple(names[at : at + GROUP]) for at in range(0, len(names), GROUP)]
