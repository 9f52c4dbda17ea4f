"""What the answers look like: structs that encode to JSON with the names of the HTTP API."""

from __future__ import annotations

from typing import Any

import msgspec


class RefView(msgspec.Struct, frozen=True):
    """A type and id within the answer's case."""

    type: str
    id: str


class SourceView(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One source's register: what it last said, and where that stands in its order. `live` is false for a delete."""

    source: str
    epoch: int
    position: tuple[int, ...]
    live: bool
    props: dict[str, Any]
    event_time: str | None = None
    partition: str | None = None
    claim: tuple[Any, ...] | None = None


class ClaimView(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A claim about the entity, and who makes it."""

    type: str
    id: str
    predicate: str
    value: Any
    sources: list[SourceView]
    confidence: float | int | None = None
    event_time: str | None = None
    props: dict[str, Any] = {}


class EntityView(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """An entity with its merged properties, and every source's own side by side."""

    case: str
    type: str
    id: str
    props: dict[str, Any]
    sources: list[SourceView]
    claims: list[ClaimView]
    overlays: dict[str, dict[str, Any]]
    event_time: str | None = None
    truncated: list[str] = []


class NeighbourView(msgspec.Struct, frozen=True):
    """An entity of a neighbourhood, `hops` relationships away."""

    type: str
    id: str
    hops: int
    props: dict[str, Any]


class LinkView(msgspec.Struct, omit_defaults=True, rename={"from_": "from"}, frozen=True):
    """A relationship that leads to an entity of the page from one that is nearer."""

    type: str
    id: str
    from_: RefView
    to: RefView
    props: dict[str, Any] | None = None


class NeighboursPage(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One page of a neighbourhood.

    Args:
        after: place of the next page, None after the last.
        truncated: why something that belongs to the neighbourhood may be missing up to this page: `paths`,
            `supernodes`, `relationships`; empty when it is whole.
        supernodes: entities that have too many relationships to be passed through.
    """

    entities: list[NeighbourView]
    relationships: list[LinkView]
    after: tuple[int, str, str] | None = None
    truncated: list[str] = []
    supernodes: list[RefView] = []


class FoundView(msgspec.Struct, frozen=True):
    """An entity that a search found."""

    case: str
    type: str
    id: str
    props: dict[str, Any]


class FoundPage(msgspec.Struct, frozen=True):
    """Entities of one page of a search, and whether more follow."""

    items: list[FoundView]
    more: bool


class CasesPage(msgspec.Struct, frozen=True):
    """Cases of one page.

    Args:
        after: every case up to this name was looked at, those after it were not; None: all were.
    """

    items: list[str]
    after: str | None = None
