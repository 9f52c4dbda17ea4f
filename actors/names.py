"""What sources and tenants have shown before: their names, and whether their records bring positions. Cached.

Both ask the control store once and remember the answer, since it never changes: a registered name stays, a source has
positions always or never. A refused name is asked for again with the next batch: the limit may have been raised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from actors.stages.bad import Bad, Slot, bad_of
from actors.stages.records import mode_of
from cluster.config import RecordLimits
from cluster.errors import BadRecord, Forbidden, NotFound
from cluster.model import Event

Space = Literal["relationship_type", "property_name"]
Register = Callable[[str, Space, Iterable[str], int], frozenset[str]]
"""(tenant, space, names, limit) → the names that are over the limit."""
UsePositions = Callable[[str, str, Literal["own", "assigned"]], None]
"""(tenant, source, how). Raises BadRecord if the source has been used the other way."""


class KnownNames:
    """Registers relationship types and property names on first sight, up to the tenant's limits."""

    def __init__(self, register: Register, limits: RecordLimits) -> None:
        self._register, self._limits = register, limits
        self._known: dict[tuple[str, Space], set[str]] = defaultdict(set)

    def admit(self, slots: Sequence[Slot[Event]]) -> list[Slot[Event]]:
        """Events whose names are registered by now.

        Raises:
            Unavailable, Conflict: the control store does not answer; safe to repeat.
        """
        refused = self._register_new(slots)
        return [self._checked(slot, refused) for slot in slots] if refused else list(slots)

    def _register_new(self, slots: Sequence[Slot[Event]]) -> dict[tuple[str, Space], frozenset[str]]:
        new: dict[tuple[str, Space], set[str]] = defaultdict(set)
        known = self._known
        for slot in slots:
            if type(slot) is not Event:
                continue
            tenant = slot.tenant or ""
            if slot.kind == "relationship" and slot.type not in known[tenant, "relationship_type"]:
                new[tenant, "relationship_type"].add(slot.type)
            if slot.props and not slot.props.keys() <= known[tenant, "property_name"]:
                new[tenant, "property_name"].update(slot.props.keys() - known[tenant, "property_name"])
        refused: dict[tuple[str, Space], frozenset[str]] = {}
        for (tenant, space), names in new.items():
            over = self._register(tenant, space, names, self._limit(space))
            known[tenant, space] |= names - over
            if over:
                refused[tenant, space] = over
        return refused

    def _checked(self, slot: Slot[Event], refused: dict[tuple[str, Space], frozenset[str]]) -> Slot[Event]:
        if isinstance(slot, Bad):
            return slot
        tenant = slot.tenant or ""
        if slot.kind == "relationship" and slot.type in refused.get((tenant, "relationship_type"), ()):
            return self._over("relationship_type", slot.type, slot.type)
        over = refused.get((tenant, "property_name"), frozenset()) & (slot.props or {}).keys()
        return self._over("property_name", min(over), slot.type) if over else slot

    def _over(self, space: Space, name: str, type: str) -> Bad:
        what, limit = space.replace("_", " "), self._limit(space)
        return Bad("constraint", f"{what} {name!r}: the tenant has {limit} already, its limit", type)

    def _limit(self, space: Space) -> int:
        if space == "relationship_type":
            return self._limits.relationship_types_per_tenant
        return self._limits.property_names_per_tenant


class PositionModes:
    """Holds sources to what they did first: their records have positions always or never."""

    def __init__(self, use: UsePositions) -> None:
        self._use = use
        self._known: dict[tuple[str, str, str], None] = {}

    def admit(self, slots: Sequence[Slot[Event]]) -> list[Slot[Event]]:
        """Events that do as their source does. Raises as `KnownNames.admit`."""
        return [self._checked(slot) if type(slot) is Event else slot for slot in slots]

    def _checked(self, event: Event) -> Slot[Event]:
        mode = mode_of(event)
        key = (event.tenant or "", event.source or "", mode)
        if key not in self._known:
            try:
                self._use(key[0], key[1], mode)
            except BadRecord as error:
                return bad_of(error, event.type)
            except (NotFound, Forbidden) as error:
                return Bad("policy", error.reason, event.type)
            self._known[key] = None
        return event
