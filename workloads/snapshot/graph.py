"""Dense ids, CSR, CSC and offsets of a range of buckets: one block for each tenant in it.

A tenant's vertices are one range of ids; a unit's share of it is one block of that range, and the edges of a block
lie whole in it. So a unit needs to know only how many vertices and edges come before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workloads.kernels.order import order_of, starts_of
from workloads.snapshot.layout import tenant_digest
from workloads.snapshot.parts import Output, RowsBySlot, numbers, rows_by_slot
from workloads.snapshot.visible import Visible

Ints = NDArray[np.int64]
LEADING_SLOT = -1
"""The first offset, 0, belongs to no slot: it counts as one of its own."""


class Share(NamedTuple):
    """How many things of a tenant there are in a range of buckets."""

    vertices: int
    edges: int
    claims: int


class Base(NamedTuple):
    """What comes before a block: id of its first vertex, edges of the tenant before it, whether it is the first."""

    vertex: int
    edges: int
    first: bool


class Rows(NamedTuple):
    """Rows first..last-1."""

    first: int
    last: int


NOTHING = Rows(0, 0)


def shares(visible: Visible) -> dict[str, Share]:
    """The share of each tenant in a unit."""
    entities, edges, claims = (ranges(frame) for frame in visible)
    found = {}
    for tenant in sorted({*entities, *claims}):
        rows = (of_kind.get(tenant, NOTHING) for of_kind in (entities, edges, claims))
        found[tenant] = Share(*(last - first for first, last in rows))
    return found


def bases(units: list[dict[str, Share]]) -> list[dict[str, Base]]:
    """Where each tenant's block begins in each unit: tenants in order of name, units in order of buckets."""
    found: list[dict[str, Base]] = [{} for _ in units]
    vertex = 0
    for tenant in sorted({tenant for unit in units for tenant in unit}):
        edges, first = 0, True
        for unit, base in zip(units, found, strict=True):
            if tenant in unit:
                base[tenant] = Base(vertex, edges, first)
                vertex, edges, first = vertex + unit[tenant].vertices, edges + unit[tenant].edges, False
    return found


def blocks(visible: Visible, at: Mapping[str, Base]) -> Iterator[Output]:
    """The graph part of a unit, ready to be written; without outputs that have no rows."""
    entities, edges, claims = (ranges(frame) for frame in visible)
    for tenant, base in at.items():
        rows = entities.get(tenant, NOTHING)
        vertices = cut(visible.entities, rows)
        own_claims = cut(visible.claims, claims.get(tenant, NOTHING))
        yield from _edges(tenant, vertices["bucket"], cut(visible.edges, edges.get(tenant, NOTHING)), base, rows.first)
        yield from _things(tenant, vertices, own_claims, base, base.vertex - rows.first)


def _things(tenant: str, vertices: pl.DataFrame, claims: pl.DataFrame, base: Base, shift: int) -> Iterator[Output]:
    digest = tenant_digest(tenant)
    if len(vertices):
        ids = pl.int_range(base.vertex, base.vertex + len(vertices), dtype=pl.Int64).alias("vertex")
        yield Output("vertices", digest, vertices.with_columns(ids), rows_by_slot(vertices["bucket"]))
    if len(claims):
        subject = pl.when(pl.col("subject") >= 0).then(pl.col("subject") + shift).otherwise(-1)
        names = {"a_type": "subject_type", "a_id": "subject_id"}
        yield Output("claims", digest, claims.with_columns(subject).rename(names), rows_by_slot(claims["bucket"]))


def _edges(tenant: str, buckets: pl.Series, edges: pl.DataFrame, base: Base, first: int) -> Iterator[Output]:
    digest, count = tenant_digest(tenant), len(buckets)
    src, dst = edges["src"].to_numpy() - first, edges["dst"].to_numpy() - first
    if len(edges):
        back = order_of(dst, count)  # by (dst, src): they come by (src, dst)
        ids = [pl.Series("src", src + base.vertex), pl.Series("dst", dst + base.vertex)]
        yield Output("edges", digest, edges.with_columns(ids), rows_by_slot(edges["bucket"]))
        csc = {"dst": dst[back] + base.vertex, "src": src[back] + base.vertex, "edge": back + base.edges}
        yield Output("csc", digest, pl.DataFrame(csc), rows_by_slot(edges["bucket"]))
    slots: RowsBySlot = ([(LEADING_SLOT, 1)] if base.first else []) + rows_by_slot(buckets)
    for name, ends in (("csr_offsets", src), ("csc_offsets", dst)):
        starts = starts_of(ends, count) + base.edges
        if slots:
            yield Output(name, digest, numbers("offset", starts if base.first else starts[1:]), slots)


def ranges(frame: pl.DataFrame) -> dict[str, Rows]:
    """The rows of each tenant, in a frame that is ordered by tenant."""
    found, at = {}, 0
    for run in frame["tenant"].rle().to_list():
        found[run["value"]] = Rows(at, at + run["len"])
        at += run["len"]
    return found


def cut(frame: pl.DataFrame, rows: Rows) -> pl.DataFrame:
    """A view of some rows."""
    return frame.slice(rows.first, rows.last - rows.first)
