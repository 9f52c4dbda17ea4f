"""From a lake over a snapshot and a Ray node to records in the log: the built-in overlays, against networkx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.config import Settings
from cluster.fold import Fold
from cluster.model import Op, Record
from cluster.stores.control import ControlStore
from cluster.stores.lake import Lake, Positions
from overlays.definition import Overlay
from overlays.louvain import LOUVAIN
from overlays.pagerank import PAGERANK, personalised
from overlays.refresh import Refreshed, refresh
from tests.cluster.stores.lake_records import entity, relationship
from tests.overlays.facts import MemoryLog, around
from tests.workloads.snapshot.lakes import fill
from workloads.overlay.backends import choose_backend
from workloads.overlay.snapshot_input import SnapshotInput
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.read import open_snapshot

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("ray_node")]
NOW = 1_800_000_000.0
PEOPLE = [f"p{number:02d}" for number in range(40)]


def facts() -> list[Record]:
    """Three cases that share people; relationships by a seeded draw; two equal ones; one deleted person."""
    rng = np.random.default_rng(11)
    in_cases = {"c1": PEOPLE[:20], "c2": PEOPLE[15:32], "c3": PEOPLE[30:]}
    records = [entity(name, case=case) for case, members in in_cases.items() for name in members]
    for case, members in in_cases.items():
        for number, (a, b) in enumerate(rng.integers(0, len(members), (60, 2))):
            records.append(relationship(f"{case}-{number}", members[a], members[b], case=case))
    records += [relationship("shared", "p16", "p17", case=case) for case in ("c1", "c2")]
    records += [entity("p03", case="c1", op=Op.DELETE, position=2), entity("x", tenant="other", case="c1")]
    return records


def oracle(records: Sequence[Record]) -> nx.MultiDiGraph:
    """The tenant's visible graph, cases joined, straight from the fold."""
    graph = nx.MultiDiGraph()
    joined = set()
    for thing, merged in Fold().apply_all(records).visible():
        tenant, _, kind, type_, id_ = thing
        if tenant == "t" and kind == 0:
            graph.add_node(id_)
        if tenant == "t" and kind == 1:
            joined.add((type_, id_, merged.a_id, merged.b_id))
    graph.add_edges_from((a, b) for _, _, a, b in sorted(joined))
    return graph


def run(control: ControlStore, folder: Path, overlay: Overlay, records: Sequence[Record], log: MemoryLog) -> Refreshed:
    with Lake.open(folder / "lake") as lake:
        if not (folder / "filled").exists():
            fill(lake, Positions("log", 1), records)
            (folder / "filled").touch()
        create_snapshot(lake, folder / "snapshots", NOW)
    surroundings = around(control, log, folder / "results")
    with open_snapshot(folder / "snapshots") as snapshot:
        backend = choose_backend(Settings().overlays.backend)
        return refresh(overlay, SnapshotInput(snapshot, "t"), backend, surroundings)


@pytest.mark.parametrize("seeds", [[], [("person", "p16"), ("person", "nobody")]])
def test_pagerank_is_networkxs(control: ControlStore, tmp_path: Path, seeds: list[tuple[str, str]]) -> None:
    overlay = personalised("near-p16", seeds) if seeds else PAGERANK
    records, log = facts(), MemoryLog()
    done = run(control, tmp_path, overlay, records, log)
    wanted = nx.pagerank(oracle(records), personalization={"p16": 1.0} if seeds else None, tol=1e-13, max_iter=1000)
    assert done.run.state == "published"
    found = {row["id"]: row["score"] for row in done.result.top}
    assert found == pytest.approx(wanted, abs=1e-9)
    assert sorted(found) == [name for name in PEOPLE if name != "p03"]
    files = [tmp_path / "results" / p for p in (tmp_path / "results").glob(f"*/{overlay.name}/*/ranks-*.parquet")]
    assert sum(pq.read_metadata(path).num_rows for path in files) == 39
    in_log = [record for record in log.records() if record.id]
    assert {record.source for record in in_log} == {f"overlay/{overlay.name}"}
    assert {record.case for record in in_log if record.id == "p16"} == {"c1", "c2"}
    both = {msgspec.json.decode(record.props)["rank_in_tenant"] for record in in_log if record.id == "p16"}
    assert len(both) == 1
    assert {"plan", "pool", "load", "solve", "write", "mapping", "commit", "append"} <= set(done.stages)


def test_communities_keep_their_names_over_equal_snapshots(control: ControlStore, tmp_path: Path) -> None:
    records, logs = facts(), [MemoryLog(), MemoryLog()]
    done = [run(control, tmp_path, LOUVAIN, records, log) for log in logs]
    assert [one.run.state for one in done] == ["published", "published"]
    assert done[0].run.snapshot != done[1].run.snapshot
    assert done[0].result.summary == done[1].result.summary
    named = [{(r.case, r.id): msgspec.json.decode(r.props)["community"] for r in log.records() if r.id} for log in logs]
    assert named[0] == named[1]
    members: dict[str, list[str]] = {}
    for row in done[0].result.top:
        members.setdefault(row["community"], []).append(row["id"])
    assert all(name == f"person:{min(ids)}" for name, ids in members.items())
    directed = oracle(records)
    graph = nx.MultiGraph()
    graph.add_nodes_from(directed)
    graph.add_edges_from(directed.edges())
    quality = nx.community.modularity(graph, [set(ids) for ids in members.values()])
    assert done[0].result.detail["modularity"] == pytest.approx(quality)


def test_equal_snapshots_give_equal_ranks(control: ControlStore, tmp_path: Path) -> None:
    records, log = facts(), MemoryLog()
    first, second = (run(control, tmp_path, PAGERANK, records, log) for _ in range(2))
    assert [row["score"] for row in first.result.top] == [row["score"] for row in second.result.top]
    assert second.run.gate is not None
    assert second.run.gate["measures"]["overlap"] == 1.0


def test_a_tenant_with_nothing(control: ControlStore, tmp_path: Path) -> None:
    for overlay in (PAGERANK, LOUVAIN):
        log = MemoryLog()
        done = run(control, tmp_path, overlay, [entity("x", tenant="other")], log)
        assert (done.run.state, done.result.top, done.result.written) == ("published", (), 0)
