"""The questions, as frozen values that were checked already (validate.py makes them from raw input)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cluster.values import Scalar

TEXT_PROPERTIES = ("_id", "name", "title", "label", "value", "email")
"""What a text search looks into: the id, and these properties. Case does not matter."""


class Direction(StrEnum):
    """Which way relationships are followed, seen from the entity that is expanded."""

    OUT = "out"
    IN = "in"
    ANY = "any"


class Detail(StrEnum):
    """How much of the relationships a neighbourhood carries."""

    NONE = "none"
    KEYS = "keys"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class EntityQuery:
    """One entity with its sources, claims and overlay values."""

    tenant: str
    case: str
    type: str
    id: str


@dataclass(frozen=True, slots=True)
class NeighboursQuery:
    """Entities at a distance of 1 to `hops` from one entity, ordered by (distance, type, id).

    Args:
        relationship_types: only these are followed; empty: all.
        entity_types: only these are shown, others are still passed through; empty: all.
        limit: entities of one page.
        after: (distance, type, id) of the last entity of the page before.
    """

    tenant: str
    case: str
    type: str
    id: str
    hops: int
    limit: int
    relationship_types: tuple[str, ...] = ()
    entity_types: tuple[str, ...] = ()
    direction: Direction = Direction.ANY
    detail: Detail = Detail.KEYS
    after: tuple[int, str, str] | None = None


@dataclass(frozen=True, slots=True)
class PropertyFilter:
    """A property that equals one of the values; numbers compare as numbers."""

    name: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Entities of a case, or of all the tenant's cases, ordered by (case, type, id).

    Args:
        case: None searches every case of the tenant.
        text: contained in the id or a property of TEXT_PROPERTIES, whatever its case; empty: everything.
        types: only these entity types; empty: all.
        filters: all of them have to hold.
        after: (case, type, id) of the last entity of the page before.
    """

    tenant: str
    case: str | None
    limit: int
    text: str = ""
    types: tuple[str, ...] = ()
    filters: tuple[PropertyFilter, ...] = ()
    after: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class CasesQuery:
    """The cases of a tenant, by name.

    Args:
        after: the last case of the page before.
    """

    tenant: str
    limit: int
    after: str = ""
