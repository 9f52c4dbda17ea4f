"""Does a snapshot's graph fit together, and does it show what the registers say?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workloads.kernels.order import starts_of
from workloads.snapshot.digest import slots_of
from workloads.snapshot.fold import fold_registers
from workloads.snapshot.graph import bases, blocks, shares
from workloads.snapshot.joined import join_cases
from workloads.snapshot.layout import SCHEMAS, SLOT_BUCKETS, SLOTS, Tenant, tenant_digest
from workloads.snapshot.read import Snapshot
from workloads.snapshot.visible import visible_of

Ints = NDArray[np.int64]
SHOWN_SLOTS = 8
"""Slots that the comparison with the registers holds in memory at once."""


def graph_problems(snapshot: Snapshot) -> Iterator[str]:
    """What does not fit within the graph part."""
    first = 0
    for tenant in snapshot.manifest.tenants:
        if tenant.first_vertex != first or tenant.digest != tenant_digest(tenant.tenant):
            yield f"tenant {tenant.digest}: the manifest places it wrongly"
        first += tenant.vertices
        found = list(_cases(snapshot, tenant)) or list(_joined(snapshot, tenant))
        yield from (f"tenant {tenant.digest}: {problem}" for problem in found)


def _cases(snapshot: Snapshot, tenant: Tenant) -> Iterator[str]:
    name, count = tenant.tenant, tenant.vertices
    vertices = snapshot.vertices(name, ["vertex", "tenant", "bucket", "case"])
    if not np.array_equal(vertices["vertex"].to_numpy(), tenant.first_vertex + np.arange(count)):
        yield "vertices do not count up from the first"
        return
    if (vertices["tenant"] != name).any():
        yield "vertices of another tenant"
    src = snapshot.array("edges", name, "src") - tenant.first_vertex
    dst = snapshot.array("edges", name, "dst") - tenant.first_vertex
    if len(src) != tenant.edges or _outside(src, count) or _outside(dst, count):
        yield "edges whose ends do not exist"
        return
    if (vertices["case"][src] != vertices["case"][dst]).any() or (
        vertices["bucket"][src] != vertices["bucket"][dst]
    ).any():
        yield "edges from one case to another"
    yield from _order(src, dst, count, snapshot.array("csr_offsets", name, "offset"), "CSR")
    edge, back = snapshot.array("csc", name, "edge"), snapshot.array("csc", name, "dst") - tenant.first_vertex
    from_ = snapshot.array("csc", name, "src") - tenant.first_vertex
    if len(edge) != len(src) or not np.array_equal(np.sort(edge), np.arange(len(src))):
        yield "CSC does not hold each edge once"
        return
    if not (np.array_equal(src[edge], from_) and np.array_equal(dst[edge], back)):
        yield "CSC and CSR hold different edges"
    yield from _order(back, from_, count, snapshot.array("csc_offsets", name, "offset"), "CSC")
    subject = snapshot.array("claims", name, "subject")
    known = subject[subject >= 0] - tenant.first_vertex
    if len(subject) != tenant.claims or _outside(known, count):
        yield "claims about vertices that do not exist"


def _joined(snapshot: Snapshot, tenant: Tenant) -> Iterator[str]:
    name = tenant.tenant
    src = snapshot.array("edges", name, "src") - tenant.first_vertex
    dst = snapshot.array("edges", name, "dst") - tenant.first_vertex
    whole = join_cases(snapshot.vertices(name, ["type", "id"]), src, dst, lambda: snapshot.edges(name, ["type", "id"]))
    graph = snapshot.tenant_graph(name)
    if not texts(whole.vertices).equals(snapshot.tenant_vertices(name)) or not np.array_equal(
        whole.of, graph.of_vertex
    ):
        yield "the joined vertices are not the join of the cases"
        return
    count = len(whole.vertices)
    arrays = (graph.csr_dst, whole.dst), (graph.csr_edge, whole.edge), (graph.csr_offsets, starts_of(whole.src, count))
    if not all(np.array_equal(found, expected) for found, expected in arrays):
        yield "the joined edges are not the join of the cases"
        return
    back = snapshot.array("joined_csc", name, "dst")
    yield from _order(back, graph.csc_src, count, graph.csc_offsets, "joined CSC")
    if not np.array_equal(_pairs(whole.src, whole.dst, count), _pairs(graph.csc_src, back, count)):
        yield "joined CSC and CSR hold different edges"


def _pairs(src: Ints, dst: Ints, count: int) -> Ints:
    return np.sort(src * max(count, 1) + dst)


def _outside(ends: Ints, count: int) -> bool:
    return bool(len(ends)) and not (int(ends.min()) >= 0 and int(ends.max()) < count)


def _order(major: Ints, minor: Ints, count: int, starts: Ints, what: str) -> Iterator[str]:
    if _outside(major, count) or _outside(minor, count):
        yield f"{what}: ends that do not exist"
        return
    if (np.diff(major * max(count, 1) + minor) < 0).any():
        yield f"{what}: edges are not in order"
    if not np.array_equal(starts, starts_of(major, count)):
        yield f"{what}: offsets do not fit the edges"


def shown_problems(snapshot: Snapshot) -> Iterator[str]:
    """Where the graph part is not what the registers show, by slot and dataset."""
    rules = snapshot.rules()
    expected = _slot_digests(snapshot)
    for first in range(0, SLOTS, SHOWN_SLOTS):
        buckets = (first * SLOT_BUCKETS, (first + SHOWN_SLOTS) * SLOT_BUCKETS - 1)
        registers = snapshot.registers(buckets)
        folded = fold_registers(registers.clear(), registers, rules.floors)
        if not texts(folded.select(registers.columns)).equals(registers):
            yield f"registers of buckets {buckets[0]} to {buckets[1]}: not in order, repeated, or hidden by a floor"
            continue
        visible = visible_of(folded, rules.priorities)
        for output in blocks(visible, bases([shares(visible)])[0]):
            if output.dataset in ("vertices", "claims", "edges"):
                found = dict(output.rows_by_slot)
                at = 0
                for slot, rows in found.items():
                    digest = _loose(output.rows.slice(at, rows), output.dataset)
                    at += rows
                    if expected.pop((output.dataset, output.tenant, slot), None) != digest:
                        yield f"{output.dataset} {output.tenant}: slot {slot} does not show what the registers say"
    for dataset, tenant, slot in expected:
        yield f"{dataset} {tenant}: slot {slot} shows what no register says"


def _slot_digests(snapshot: Snapshot) -> dict[tuple[str, str, int], list[str]]:
    found = {}
    for dataset in snapshot.manifest.datasets:
        if dataset.name in ("vertices", "claims", "edges"):
            tenant = next(t.tenant for t in snapshot.manifest.tenants if t.digest == dataset.tenant)
            rows, at = snapshot.frame(dataset.name, tenant), 0
            for slot in (slot for part in dataset.parts for slot in part.slots):
                found[dataset.name, dataset.tenant, slot.slot] = _loose(rows.slice(at, slot.rows), dataset.name)
                at += slot.rows
    return found


def texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with texts for codes."""
    return rows.with_columns(pl.col(pl.Enum).cast(pl.String))


def _loose(rows: pl.DataFrame, dataset: str) -> list[str]:
    """A digest of rows, if there are any, without the ids that depend on what comes before."""
    names = [name for name in SCHEMAS[dataset].names if name not in ("vertex", "src", "dst", "subject")]
    table = rows.select(names).to_arrow(compat_level=pl.CompatLevel.oldest())
    return [slot.digest for slot in slots_of(table, [(0, len(rows))])]
