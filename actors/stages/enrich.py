"""Enrich: functions that add to events what can be derived from them (the place of an address, a parsed name).

An enricher is a pure function over a batch with a declared name and version: the same event and version give the same
result for ever, so that a replay finds duplicates. Tables that it needs are part of its version. None is built in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from actors.stages.bad import Bad, Slot, bad_of
from actors.stages.normalise import normalise
from actors.stages.validate import check_names
from cluster.config import RecordLimits
from cluster.errors import BadRecord, Rejected
from cluster.model import Event


class Enricher(Protocol):
    """Adds properties to events."""

    @property
    def name(self) -> str:
        """Unique among the registered ones."""

    @property
    def version(self) -> int:
        """Counted up whenever results change."""

    def __call__(self, events: Sequence[Event]) -> Sequence[dict[str, object]]:
        """Properties to add to each event, in order. Does not change the events, blocks on nothing, knows no clock.

        What a source says itself stays: an added property never replaces one that is there.
        """


class Enrichers:
    """The registered enrichers, in the order in which they run; each sees what those before it added."""

    def __init__(self) -> None:
        self._by_name: dict[str, Enricher] = {}

    def register(self, enricher: Enricher) -> None:
        """Adds one.

        Raises:
            Rejected: there is one of this name.
        """
        if enricher.name in self._by_name:
            raise Rejected(f"there is an enricher {enricher.name!r} already; give this one another name")
        self._by_name[enricher.name] = enricher

    def versions(self) -> dict[str, int]:
        """Version by name."""
        return {name: enricher.version for name, enricher in self._by_name.items()}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Enricher]:
        return iter(self._by_name.values())


def enrich(slots: Sequence[Slot[Event]], enrichers: Enrichers, limits: RecordLimits) -> list[Slot[Event]]:
    """Events with what the enrichers add to upserts, checked and canonical as if the source had sent it."""
    kept = list(slots)
    for enricher in enrichers:
        at = [index for index, slot in enumerate(kept) if type(slot) is Event and slot.op == "upsert"]
        events = [kept[index] for index in at]
        for index, added in zip(at, enricher(events), strict=True):  # type: ignore[arg-type]
            kept[index] = _with(kept[index], added, limits)
    return normalise(kept, limits) if len(enrichers) else kept


def _with(slot: Slot[Event], added: dict[str, object], limits: RecordLimits) -> Slot[Event]:
    if isinstance(slot, Bad) or not added:
        return slot
    props = {**added, **(slot.props or {})}
    try:
        check_names(props, limits.properties)
    except BadRecord as error:
        return bad_of(error, slot.type)
    slot.props = props
    return slot
