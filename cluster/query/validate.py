"""Raw input to typed questions: every text, number and list is checked against a named limit here, and only here.

Every function raises `Rejected` with what is wrong and what would be right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.config import QuerySettings, RecordLimits
from cluster.dialect import RESERVED_PROPERTIES
from cluster.errors import Rejected
from cluster.query.ir import (
    CasesQuery,
    Detail,
    Direction,
    EntityQuery,
    NeighboursQuery,
    PropertyFilter,
    SearchQuery,
)
from cluster.values import INT64_MAX, INT64_MIN, Scalar

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_PROPERTY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,255}\Z")
FILTERS_MAX = 16
TYPES_MAX = 64
TEXT_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """The limits that questions are checked against."""

    query: QuerySettings
    records: RecordLimits


def _text(what: str, value: str, most: int) -> str:
    if not 1 <= len(value) <= most:
        raise Rejected(f"{what}: give 1 to {most} characters, not {len(value)}")
    if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise Rejected(f"{what}: holds a NUL character or half a surrogate pair")
    return value


def case_name(limits: QueryLimits, case: str) -> str:
    """A case as it may be named."""
    return _text("case", case, limits.records.case_chars)


def type_name(what: str, type: str) -> str:
    """An entity or relationship type as it may be named."""
    if not _TYPE.match(type):
        raise Rejected(f"{what} {type[:80]!r}: use a letter, then up to 63 letters, digits, '_' or '-'")
    return type


def type_names(what: str, types: Iterable[str]) -> tuple[str, ...]:
    """Several types, each once, sorted."""
    names = tuple(sorted({type_name(what, t) for t in types}))
    if len(names) > TYPES_MAX:
        raise Rejected(f"{what}: at most {TYPES_MAX} types, not {len(names)}")
    return names


def page_limit(limits: QueryLimits, limit: int | None) -> int:
    """How many items a page has."""
    if limit is None:
        return limits.query.page_default
    if not 1 <= limit <= limits.query.page_max:
        raise Rejected(f"limit: give 1 to {limits.query.page_max}, not {limit}")
    return limit


def entity_query(limits: QueryLimits, tenant: str, case: str, type: str, id: str) -> EntityQuery:
    """A question for one entity."""
    id = _text("id", id, limits.records.id_chars)
    return EntityQuery(tenant, case_name(limits, case), type_name("type", type), id)


def neighbours_query(
    limits: QueryLimits,
    entity: EntityQuery,
    hops: int = 1,
    limit: int | None = None,
    relationship_types: Iterable[str] = (),
    entity_types: Iterable[str] = (),
    direction: str = "any",
    detail: str = "keys",
) -> NeighboursQuery:
    """A question for the neighbourhood of an entity."""
    if not 1 <= hops <= limits.query.hops_max:
        raise Rejected(f"hops: give 1 to {limits.query.hops_max}, not {hops}")
    if direction not in tuple(Direction):
        raise Rejected("direction: give out, in or any")
    if detail not in tuple(Detail):
        raise Rejected("relationships: give none, keys or full")
    return NeighboursQuery(
        entity.tenant, entity.case, entity.type, entity.id, hops, page_limit(limits, limit),
        type_names("types", relationship_types), type_names("entity_types", entity_types),
        Direction(direction), Detail(detail),
    )  # fmt: skip


def search_query(
    limits: QueryLimits,
    tenant: str,
    case: str | None = None,
    text: str = "",
    types: Iterable[str] = (),
    filters: Sequence[str] = (),
    limit: int | None = None,
) -> SearchQuery:
    """A question for entities by text, types and exact properties (`name=value`)."""
    if len(filters) > FILTERS_MAX:
        raise Rejected(f"prop: at most {FILTERS_MAX} filters, not {len(filters)}")
    return SearchQuery(
        tenant=tenant,
        case=None if case is None else case_name(limits, case),
        limit=page_limit(limits, limit),
        text=_text("q", text, TEXT_CHARS_MAX) if text else "",
        types=type_names("type", types),
        filters=tuple(map(property_filter, filters)),
    )


def cases_query(limits: QueryLimits, tenant: str, limit: int | None = None) -> CasesQuery:
    """A question for the tenant's cases."""
    return CasesQuery(tenant, page_limit(limits, limit))


def property_filter(text: str) -> PropertyFilter:
    """`name=value`: the value as text, and also as number or boolean where it reads as one; `"…"` is text only."""
    name, equals, value = text.partition("=")
    if not equals or not _PROPERTY.match(name) or name in RESERVED_PROPERTIES:
        raise Rejected(f"prop {text[:80]!r}: write name=value; names are letters, digits, '_', '.' and '-'")
    value = _text(f"prop {name}", value, 4096) if value else ""
    return PropertyFilter(name, _readings(value))


def _readings(value: str) -> tuple[Scalar, ...]:
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return (value,)
    if isinstance(read, str):
        return (_text("prop", read, 4096),) if read else ("",)
    fits = isinstance(read, bool | float | int) and math.isfinite(read) and INT64_MIN <= read <= INT64_MAX
    return (value, read) if fits else (value,)
