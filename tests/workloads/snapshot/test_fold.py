"""The fold over columns against `cluster.fold.Fold`, and whole snapshots against both."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import batch
from cluster.fold import Fold
from cluster.model import Kind, Op, Record, floor_record, priority_record
from cluster.stores.lake import Lake, LakeEntry, Positions
from tests.cluster.stores.lake_records import entity, relationship
from tests.strategies import TENANTS, histories
from tests.workloads.snapshot.lakes import fill
from workloads.snapshot import units, visible
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.export import export_lines, state_lines
from workloads.snapshot.read import open_snapshot

NOW = 1_800_000_000.0


def check(folder: Path, oracle: Fold, tenants: Sequence[str]) -> None:
    with open_snapshot(folder) as snapshot:
        assert state_lines(snapshot) == oracle.state_lines()
        exported = oracle.export_lines()
        assert sorted(itertools.chain(*(export_lines(snapshot, tenant) for tenant in tenants))) == exported
        for tenant, case in {(t[0], t[1]) for t, _ in oracle.visible()}:
            wanted = [line for line in exported if f'"case":"{case}"' in line and f'"tenant":"{tenant}"' in line]
            assert export_lines(snapshot, tenant, case) == wanted


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    histories,
    st.lists(st.integers(0, 40), max_size=2),
    st.sampled_from((1, 7, 10_000)),
    st.sampled_from((1, 5, 10_000)),
    st.randoms(use_true_random=False),
)
def test_snapshots_equal_the_fold(
    records: list[Record], cuts: list[int], unit_rows: int, piece_rows: int, random: object
) -> None:
    """Any history, any order, snapshots taken in between, one unit or many, one piece or many."""
    random.shuffle(records)  # type: ignore[attr-defined]
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as name,
        Lake.open(Path(name) / "lake") as lake,
    ):
        patch.setattr(units, "PIECE_ROWS", piece_rows)
        folder, oracle, at = Path(name) / "snapshots", Fold(), Positions("log", 1)
        bounds = [0, *sorted(cuts), len(records)]
        for first, last in itertools.pairwise(bounds):
            at = fill(lake, at, records[first:last])
            oracle.apply_all(records[first:last])
            create_snapshot(lake, folder, NOW, unit_rows=unit_rows)
            check(folder, oracle, TENANTS)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories, st.sampled_from((1, 2, 1 << 60)))
def test_hashes_may_collide(records: list[Record], distinct: int) -> None:
    """Ends are found by a hash: equal ones, and one that an absent thing shares with another, change nothing."""
    few = visible.hash_of
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as name,
        Lake.open(Path(name) / "lake") as lake,
    ):
        patch.setattr(visible, "hash_of", lambda prefix, id: few(prefix, id) % np.uint64(distinct))
        oracle = Fold()
        oracle.apply_all(records)
        fill(lake, Positions("log", 1), records)
        create_snapshot(lake, Path(name) / "snapshots", NOW)
        check(Path(name) / "snapshots", oracle, TENANTS)


def test_pieces_that_show_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "PIECE_ROWS", 1)
    gone = [entity("a", case=f"c{n}", op=op, position=1 + op) for n in range(4) for op in (Op.UPSERT, Op.DELETE)]
    with Lake.open(tmp_path / "lake") as lake:
        fill(lake, Positions("log", 1), gone)
        counts = create_snapshot(lake, tmp_path / "snapshots", NOW).counts
    assert (counts["registers"], counts["vertices"]) == (4, 0)


CASES = {
    "nothing": [],
    "a relationship waits for its ends": [relationship("r", "a", "b"), entity("a")],
    "both ends come": [relationship("r", "a", "b"), entity("a"), entity("b")],
    "ends change": [
        *(entity(name) for name in "abc"),
        relationship("r", "a", "b"),
        relationship("r", "a", "c", position=2),
    ],
    "two sources": [entity("a", props='{"x":1}'), entity("a", source="z", props='{"x":2,"y":3}')],
    "priority": [
        entity("a", props='{"x":1}'),
        entity("a", source="z", props='{"x":2,"y":3}'),
        priority_record("t", "z", 5, 1, 0),
        priority_record("t", "z", 5, 1, 1),
    ],
    "floors": [
        entity("a"),
        entity("b", position=5),
        floor_record("t", "s", "", "a0a3", 0),
        floor_record("t", "s", "", "a0a3", 1),
    ],
    "a floor of one type": [entity("a"), entity("b", type="org"), floor_record("t", "s", "org", "a0a3", 0)],
    "overlay alone shows nothing": [entity("a", source="overlay/pagerank", props='{"rank":0.5}')],
    "two sources disagree about ends": [
        *(entity(name) for name in "abcd"),
        relationship("r", "a", "b", source="y"),
        relationship("r", "c", "d", source="x"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_particular_histories(tmp_path: Path, name: str) -> None:
    with Lake.open(tmp_path / "lake") as lake:
        fill(lake, Positions("log", 1), CASES[name])
        create_snapshot(lake, tmp_path / "snapshots", NOW)
        check(tmp_path / "snapshots", Fold().apply_all(CASES[name]), ["t"])


def test_floor_rows_come_whatever_the_bucket(tmp_path: Path) -> None:
    """A floor's bucket is the number of its log partition, not one of a case."""
    records = [entity("a"), floor_record("t", "s", "", "b", 4095)]
    assert records[1].kind == Kind.FLOOR
    with Lake.open(tmp_path / "lake") as lake:
        lake.append([LakeEntry(0, 1, batch.to_arrow(records))], Positions("log", 1))
        create_snapshot(lake, tmp_path / "snapshots", NOW, unit_rows=1)
        check(tmp_path / "snapshots", Fold().apply_all(records), ["t"])
