"""Rows of a batch for a graph database, whichever it is: groups, pages of them, and store keys.

How a row is written for a database is in falkor_rows.py and neo4j_rows.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from cluster import dialect
from cluster.batch import Frame, Mask, frame_of, only, records_of
from cluster.ids import case_key, store_key, thing_key, thing_keys, void_key
from cluster.model import Kind, Record
from cluster.stores.graph import is_mixed

Group = tuple[int, str]
"""(kind, relationship type or label): the rows that one part of a query takes. Entities sort first, then
relationships, claims and overlays."""

_LABELS = {int(Kind.ENTITY): dialect.ENTITY, int(Kind.CLAIM): dialect.CLAIM}
_ENTITIES: Group = (int(Kind.ENTITY), dialect.ENTITY)
_OVERLAYS: Group = (9, dialect.OVERLAY)


class Page(NamedTuple):
    """What one part of a query writes: records of one group and their rows, as the database takes them."""

    group: Group
    rows: Frame
    keys: list[str]
    """The rows' store keys."""
    body: Any
    """Of FalkorDB the rows' text, of Neo4j a list of maps."""
    mixed: bool
    """Whether the rows are of several (tenant, source, epoch)."""


def label_of(kind: int) -> str:
    """The label of an entity's or a claim's node."""
    return _LABELS[kind]


def group_of(record: Record) -> Group:
    """Which part of a query writes a record."""
    if record.is_overlay:
        return _OVERLAYS
    if record.kind == Kind.RELATIONSHIP:
        return Kind.RELATIONSHIP, record.type
    return record.kind, _LABELS[record.kind]


def overlay_key(record: Record) -> str:
    """Store key of an overlay's register: one a (source, thing)."""
    kind_and_type = f"{record.source}\n{record.kind}\n{record.type}"
    return case_key(record.tenant, record.case) + thing_key(kind_and_type, record.id)


def overlay_owner(tenant: str, source: str) -> str:
    """The indexed text by which all values of one overlay of one tenant are found."""
    return thing_key(tenant, source)


def key_of(record: Record) -> str:
    """The store key under which a record's register lies."""
    if record.is_overlay:
        return overlay_key(record)
    return store_key(record.tenant, record.case, record.type, record.id)


def ends_of(record: Record) -> tuple[str, str]:
    """Store keys of a relationship's ends; the case's void twice where they are not known."""
    if not record.a_type:
        void = void_key(record.tenant, record.case)
        return void, void
    prefix = case_key(record.tenant, record.case)
    return prefix + thing_key(record.a_type, record.a_id), prefix + thing_key(record.b_type, record.b_id)


def in_groups(rows: Frame) -> tuple[Frame, dict[Group, int]]:
    """Rows of entities and relationships, overlays apart, in the order of their groups; and how many each group has."""
    at: dict[Group, list[int]] = defaultdict(list)
    for number, (kind, type_) in enumerate(zip(rows["kind"].to_list(), rows["type"].to_list(), strict=True)):
        at[(kind, type_ if kind == Kind.RELATIONSHIP else dialect.ENTITY)].append(number)
    groups = sorted(at)
    ordered = rows if len(groups) < 2 else rows[[number for group in groups for number in at[group]]]
    return ordered, {group: len(at[group]) for group in groups}


def cut(groups: Mapping[Group, int], most: int) -> Iterator[tuple[Group, slice]]:
    """Pages of at most so many rows, of rows in the order of their groups."""
    end = 0
    for group, number in groups.items():
        begin, end = end, end + number
        for at in range(begin, end, most):
            yield group, slice(at, min(at + most, end))


def pages_of(
    rows: Frame,
    by_column: Mask,
    bodies: Callable[[Frame, int], tuple[list[str], Sequence[Any]]],
    row: Callable[[Record], Any],
    joined: Callable[[Sequence[Any]], Any],
    write_rows: int,
) -> list[Page]:
    """Rows in pages of at most `write_rows`, in the order of their groups.

    Args:
        by_column: those that `bodies` can make; all others go one by one through `row`.
        bodies: store keys and bodies of rows, of which so many entities come first, and then relationships.
        joined: a page's body, of those of its rows.
    """
    mixed = is_mixed(rows)
    found: list[Page] = []

    def add(group: Group, page: Frame, keys: list[str], made: Sequence[Any]) -> None:
        found.append(Page(group, page, keys, joined(made), mixed and is_mixed(page)))

    columns, groups = in_groups(only(rows, by_column))
    if groups:
        keys, made = bodies(columns, groups.get(_ENTITIES, 0))
        for group, at in cut(groups, write_rows):
            add(group, columns[at], keys[at], made[at])
    others: dict[Group, list[Record]] = defaultdict(list)
    for record in records_of(only(rows, ~by_column)):
        others[group_of(record)].append(record)
    for group, records in others.items():
        for _, at in cut({group: len(records)}, write_rows):
            add(group, frame_of(records[at]), list(map(key_of, records[at])), list(map(row, records[at])))
    return sorted(found, key=lambda page: page.group)


def joined(
    first: Sequence[Page], second: Sequence[Page], write_rows: int, bodies: Callable[[Any, Any], Any]
) -> list[Page]:
    """Pages of two batches as those of one, in the order of their groups; of a thing in both, the first's record comes
    in an earlier page.

    Args:
        bodies: two pages' bodies as one.
    """
    found = list(first)
    last = {page.group: number for number, page in enumerate(found)}
    for page in second:
        at = last.get(page.group)
        if at is None or _apart(found[at], page, write_rows):
            found.append(page)
            last[page.group] = len(found) - 1
        else:
            before = found[at]
            rows = pl.concat([before.rows, page.rows])
            body, mixed = bodies(before.body, page.body), before.mixed or page.mixed or is_mixed(rows)
            found[at] = Page(page.group, rows, before.keys + page.keys, body, mixed)
    return sorted(found, key=lambda page: page.group)


def _apart(first: Page, second: Page, write_rows: int) -> bool:
    """Whether two pages are too much for one query, which takes one row a thing."""
    return len(first.keys) + len(second.keys) > write_rows or not set(first.keys).isdisjoint(second.keys)


def of_cases(rows: Frame, *made: Callable[[str, str], str]) -> list[list[str]]:
    """What each of these makes of the (tenant, case) of each row; it is called once a case."""
    pairs = list(zip(rows["tenant"].to_list(), rows["case"].to_list(), strict=True))
    cases = set(pairs)
    known = [{pair: make(*pair) for pair in cases} for make in made]
    return [[texts[pair] for pair in pairs] for texts in known]


def keys_in(rows: Frame, prefixes: Sequence[str], type_column: str = "type", id_column: str = "id") -> list[str]:
    """`ids.store_key` of each row's thing that these columns name; `prefixes`: `ids.case_key` of each row."""
    things = thing_keys(rows[type_column].to_list(), rows[id_column].to_list())
    return [prefix + thing for prefix, thing in zip(prefixes, things, strict=True)]
