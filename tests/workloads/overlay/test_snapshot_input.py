"""A tenant's graph out of a real snapshot: cases joined, equal relationships once, without overlays and the deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cluster.model import Op, Record
from cluster.stores.lake import Lake, Positions
from tests.cluster.stores.lake_records import entity, relationship
from tests.workloads.snapshot.lakes import fill
from workloads.overlay.louvain_job import read_edges
from workloads.overlay.row_groups import plan_here
from workloads.overlay.snapshot_input import SnapshotInput
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.read import Snapshot, open_snapshot

NOW = 1_800_000_000.0


def taken(folder: Path, records: Sequence[Record]) -> Snapshot:
    with Lake.open(folder / "lake") as lake:
        fill(lake, Positions("log", 1), records)
        create_snapshot(lake, folder / "snapshots", NOW)
    return open_snapshot(folder / "snapshots")


def edges_of(source: SnapshotInput) -> list[tuple[str, str]]:
    offsets, neighbours = plan_here([source.graph.offsets, source.graph.neighbours])
    src, dst = read_edges(source.graph.vertices, offsets, neighbours)
    names = [id_ for _, id_ in source.keys(np.arange(source.graph.vertices))]
    return sorted((names[a], names[b]) for a, b in zip(src.tolist(), dst.tolist(), strict=True))


HISTORY = [
    *(entity(name, case="c1") for name in "abc"),
    *(entity(name, case="c2") for name in "bcd"),
    relationship("r1", "a", "b", case="c1"),
    relationship("r2", "b", "c", case="c1"),
    relationship("r2", "b", "c", case="c2"),  # the same in both cases: once
    relationship("r3", "b", "c", case="c2"),  # another one between the same two: counts
    relationship("r4", "d", "b", case="c2"),
    entity("gone", case="c1"),
    entity("gone", case="c1", op=Op.DELETE, position=2),
    entity("gone", case="c1", source="overlay/pagerank", position=9),
    relationship("r5", "a", "gone", case="c1"),
    entity("B", case="c1", type="org"),
    entity("a", tenant="other", case="c1"),
]


def test_cases_are_joined(tmp_path: Path) -> None:
    with taken(tmp_path, HISTORY) as snapshot:
        source = SnapshotInput(snapshot, "t")
        assert source.keys(np.arange(source.graph.vertices)) == [
            ("org", "B"), ("person", "a"), ("person", "b"), ("person", "c"), ("person", "d"),
        ]  # fmt: skip
        assert edges_of(source) == [("a", "b"), ("b", "c"), ("b", "c"), ("d", "b")]
        assert source.graph.edges == 4
        cases, case, vertex = source.membership()
        assert sorted((cases[c], v) for c, v in zip(case.tolist(), vertex.tolist(), strict=True)) == [
            ("c1", 0), ("c1", 1), ("c1", 2), ("c1", 3), ("c2", 2), ("c2", 3), ("c2", 4),
        ]  # fmt: skip
        assert source.as_of == "2027-01-15T08:00:00.000Z"
        assert source.snapshot == snapshot.id
        assert source.find([("person", "d"), ("person", "nobody"), ("org", "B")]).tolist() == [4, -1, 0]
        assert source.find([]).tolist() == []


def test_a_tenant_that_is_not_there_has_an_empty_graph(tmp_path: Path) -> None:
    with taken(tmp_path, HISTORY) as snapshot:
        source = SnapshotInput(snapshot, "nobody")
        assert (source.graph.vertices, source.graph.edges) == (0, 0)
        assert len(source.membership().vertex) == 0
        assert source.find([("person", "a")]).tolist() == [-1]
        assert source.keys(np.empty(0, np.int64)) == []


@pytest.mark.parametrize("records", [[entity("a"), entity("b")], []])
def test_without_relationships(tmp_path: Path, records: list[Record]) -> None:
    with taken(tmp_path, [*records, entity("x", tenant="other")]) as snapshot:
        source = SnapshotInput(snapshot, "t")
        assert (source.graph.vertices, source.graph.edges) == (len(records), 0)
        if records:
            assert edges_of(source) == []


def test_vertices_are_in_the_order_of_code_points(tmp_path: Path) -> None:
    names = ["a", "B", "é", "z", "\U0001f600", "￿", "ab", "a b", "A"]
    with taken(tmp_path, [entity(name) for name in names]) as snapshot:
        source = SnapshotInput(snapshot, "t")
        assert [id_ for _, id_ in source.keys(np.arange(source.graph.vertices))] == sorted(names)
