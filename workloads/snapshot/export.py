"""Facts out of a snapshot, as the fold would print them: visible ones from the graph part, registers from the state."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from cluster import batch
from cluster.fold import Merged, Thing, export_line, floor_line, hash_lines, priority_line, state_line
from cluster.model import Kind
from workloads.snapshot.fold import to_batch
from workloads.snapshot.layout import SLOT_BUCKETS
from workloads.snapshot.read import Snapshot

CONTENT = ["case", "kind", "type", "id", "a_type", "a_id", "b_type", "b_id", "event_time", "props", "claim"]


def content(snapshot: Snapshot, tenant: str) -> pl.DataFrame:
    """A tenant's visible things from the graph part: the columns CONTENT and `bucket`, in no particular order."""
    first = snapshot.tenant(tenant).first_vertex
    vertices = snapshot.vertices(tenant)
    none = pl.lit("")
    entities = vertices.with_columns(
        *(none.alias(name) for name in ("a_type", "a_id", "b_type", "b_id", "claim")), kind=pl.lit(int(Kind.ENTITY))
    )
    edges = snapshot.edges(tenant)
    a, b = vertices[edges["src"] - first], vertices[edges["dst"] - first]
    ends = {"a_type": a["type"], "a_id": a["id"], "b_type": b["type"], "b_id": b["id"]}
    relationships = edges.with_columns(a["case"], a["bucket"], **ends, kind=pl.lit(int(Kind.RELATIONSHIP)), claim=none)
    claims = snapshot.claims(tenant).rename({"subject_type": "a_type", "subject_id": "a_id"})
    claims = claims.with_columns(b_type=none, b_id=none, kind=pl.lit(int(Kind.CLAIM)))
    return pl.concat(frame.select("bucket", *CONTENT) for frame in (entities, relationships, claims))


def lines_of(tenant: str, rows: pl.DataFrame) -> list[str]:
    """Rows of `content` as sorted lines."""
    return sorted(_line(tenant, *row) for row in rows.select(CONTENT).iter_rows())


def _line(tenant: str, case: str, kind: int, type: str, id: str, *fields: str) -> str:
    thing: Thing = (tenant, case, kind, type, id)
    return export_line(thing, Merged(*fields))


def export_lines(snapshot: Snapshot, tenant: str, case: str | None = None) -> list[str]:
    """A tenant's visible graph, or one case of it, as sorted canonical JSON lines: those of `Fold.export_lines`.

    A tenant with nothing in the snapshot has no lines.
    """
    if tenant not in snapshot.tenants():
        return []
    rows = content(snapshot, tenant)
    return lines_of(tenant, rows if case is None else rows.filter(pl.col("case") == case))


def export_hash(snapshot: Snapshot, tenant: str, case: str | None = None) -> str:
    """SHA-256 of `export_lines`."""
    return hash_lines(export_lines(snapshot, tenant, case))


def state_lines(snapshot: Snapshot, tenant: str | None = None) -> list[str]:
    """Registers, tombstones, floors and priorities as sorted lines: those of `Fold.state_lines`."""
    rules = snapshot.rules()
    lines = list(_register_lines(snapshot, tenant))
    lines += [floor_line(key, version) for key, version in rules.floors.items() if tenant in (None, key[0])]
    lines += [priority_line(key, value) for key, value in rules.priorities.items() if tenant in (None, key[0])]
    return sorted(lines)


def _register_lines(snapshot: Snapshot, tenant: str | None) -> Iterator[str]:
    for slot in sorted({slot.slot for part in snapshot.manifest.dataset("registers").parts for slot in part.slots}):
        rows = snapshot.registers((slot * SLOT_BUCKETS, (slot + 1) * SLOT_BUCKETS - 1))
        if tenant is not None:
            rows = rows.filter(pl.col("tenant") == tenant)
        yield from map(state_line, batch.from_arrow(to_batch(rows)))
