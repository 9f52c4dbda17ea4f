"""Rows of a batch for a graph database, whichever it is: groups that one query takes, pages of them, and store keys.

How a row is written for a database is in falkor_rows.py and neo4j_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from cluster import dialect
from cluster.batch import Frame
from cluster.ids import case_key, case_tag, store_key, thing_key, thing_keys, void_key
from cluster.model import Kind, Record

Group = tuple[int, str]
"""(kind, relationship type or label): the rows that one query takes. Entities sort first, then relationships, claims
and overlays."""

_LABELS = {int(Kind.ENTITY): dialect.ENTITY, int(Kind.CLAIM): dialect.CLAIM}
_OVERLAYS: Group = (9, dialect.OVERLAY)


class Page(NamedTuple):
    """What one query writes: records of one group and their rows, as the database takes them."""

    group: Group
    rows: Frame
    keys: pl.Series
    """The rows' store keys."""
    body: Any
    """Of FalkorDB the rows' text, of Neo4j a list of maps."""
    mixed: bool
    """Whether the rows are of several (tenant, source, epoch)."""


def label_of(kind: int) -> str:
    """The label of an entity's or a claim's node."""
    return _LABELS[kind]


def group_of(record: Record) -> Group:
    """Which query writes a record."""
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


def with_cases(rows: Frame) -> Frame:
    """With `_case` and `_tag` (ids.py), and `_key`, the store key of each row's own thing."""
    cases = rows.select("tenant", "case").unique()
    pairs = cases.rows()
    cases = cases.with_columns(
        pl.Series("_case", [case_key(*pair) for pair in pairs]),
        pl.Series("_tag", [str(case_tag(*pair)) for pair in pairs]),
    )
    known = rows.join(cases, on=["tenant", "case"], how="left", maintain_order="left")
    return known.with_columns(_key=pl.col("_case") + things(rows, "type", "id"))


def things(rows: Frame, type_column: str, id_column: str) -> pl.Series:
    """`ids.thing_key` of each row."""
    return pl.Series(thing_keys(rows[type_column].to_list(), rows[id_column].to_list()), dtype=pl.String)


def in_groups(rows: Frame) -> Iterator[tuple[Group, Frame]]:
    """Rows of entities and relationships, overlays apart, by group."""
    entities = rows.filter(pl.col("kind") == Kind.ENTITY)
    if entities.height:
        yield (Kind.ENTITY, dialect.ENTITY), entities
    for of_type in rows.filter(pl.col("kind") == Kind.RELATIONSHIP).partition_by("type"):
        yield (Kind.RELATIONSHIP, str(of_type.item(0, "type"))), of_type


def cut(rows: Frame, most: int) -> Iterator[Frame]:
    """Rows in pages."""
    for at in range(0, rows.height, most):
        yield rows[at : at + most]
