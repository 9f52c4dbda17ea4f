"""Which relationship types a hop names, so that it costs what the tenant's own types cost.

A shard's graph is shared by tenants, and FalkorDB looks for each pair of neighbours into every relationship type that a
hop may take: an untyped one into all of the graph's. So a hop names the tenant's registered types, some at a time.

Nothing is hidden by that. A type is registered before the first record that has it is appended to the log, so before
a shard can show it, and no name is ever removed. The names are asked for within the question, after what `wait_for`
names is applied: every type of what was visible when the question began is among them. What is kept between questions
is used only while its number is that of the control store. Where the control store does not answer, hops are untyped,
which is always right. How many types the graph has decides the plan and nothing else, so it may be old. (A control
store that is put back to before a type was registered would hide it, until a record brings the type again.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

from cluster.errors import IntelGraphError
from cluster.query import cypher
from cluster.query.hot import Shard

GROUP = 32
"""Types of one statement: each pair of neighbours costs as many look-ups, each statement is a round trip."""
TOTAL_S = 30.0
TENANTS_KEPT = 1_000
Types = tuple[str, ...]
Groups = tuple[Types, ...]
EVERY: Groups = ((),)
"""One untyped hop."""
_SPACE: Literal["relationship_type"] = "relationship_type"


class Names(Protocol):
    """Where registered names are; `cluster.stores.control_names.RegisteredNames` is one."""

    def count(self, tenant: str, space: Literal["relationship_type", "property_name"]) -> int:
        """How many the tenant has."""

    def list(self, tenant: str, space: Literal["relationship_type", "property_name"]) -> frozenset[str]:
        """The names of the tenant."""


class HopTypes:
    """The types to name, by tenant and shard. Safe for several threads: what they keep is replaced whole."""

    def __init__(self, names: Names, clock: Callable[[], float] = time.monotonic) -> None:
        self._names, self._clock = names, clock
        self._kept: dict[str, Types] = {}
        self._totals: dict[str, tuple[int, float]] = {}

    def groups(self, shard: Shard, tenant: str, wanted: Types) -> Groups:
        """Groups of types, each for a statement of its own; an empty group is an untyped hop, no group is no hop.

        Args:
            wanted: those that the question asks for; empty: all.
        """
        if wanted:
            known = self._registered(tenant)
            return EVERY if known is None else grouped(tuple(t for t in known if t in frozenset(wanted)))
        total = self._total(shard)
        if untyped_is_cheaper(total, len(self._kept.get(tenant, ()))):
            return EVERY  # the tenant has as many types as that, or more
        known = self._registered(tenant)
        if known is None or untyped_is_cheaper(total, len(known)):
            return EVERY
        return grouped(known)

    def _registered(self, tenant: str) -> Types | None:
        try:
            kept = self._kept.get(tenant)
            if kept is None or len(kept) != self._names.count(tenant, _SPACE):
                if len(self._kept) >= TENANTS_KEPT:
                    self._kept.clear()
                kept = self._kept[tenant] = tuple(sorted(self._names.list(tenant, _SPACE)))
        except IntelGraphError:
            return None
        return kept

    def _total(self, shard: Shard) -> int:
        total, read_at = self._totals.get(shard.name, (0, float("-inf")))
        if self._clock() - read_at > TOTAL_S:
            rows = shard.read(cypher.count_types())
            total = int(rows[0][0]) if rows else 0
            self._totals[shard.name] = (total, self._clock())
        return total


def untyped_is_cheaper(total: int, own: int) -> bool:
    """Whether a hop over all types of a graph costs no more than over the tenant's; naming types doubles a look-up."""
    return total <= 2 * min(own, GROUP)


def grouped(types: Types) -> Groups:
    """Some types at a time. Pure."""
    return tuple(types[at : at + GROUP] for at in range(0, len(types), GROUP))
