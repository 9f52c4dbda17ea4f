"""Snapshots on Ray equal those of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.stores.lake import Lake, Positions
from tests.cluster.stores.lake_records import entity, relationship
from tests.workloads.snapshot.lakes import fill
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.job import take_snapshot, wait_for_lake
from workloads.snapshot.read import open_snapshot
from workloads.snapshot.verify import verify

START = Positions("log", 1)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake.open(tmp_path / "lake") as opened:
        people = [entity(f"p{n}", tenant=f"t{n % 3}", case=f"c{n % 7}") for n in range(80)]
        ties = [relationship(f"r{n}", f"p{n}", f"p{n + 21}", tenant=f"t{n % 3}", case=f"c{n % 7}") for n in range(50)]
        fill(opened, START, [*people, *ties])
        yield opened


@pytest.mark.services
@pytest.mark.slow
def test_on_ray_and_here_are_equal(lake: Lake, tmp_path: Path, ray_node: None) -> None:
    ends = {p: at.number for p, at in lake.positions().partitions.items()}
    on_ray = take_snapshot(lake.address, tmp_path / "ray", ends, unit_rows=30)
    here = create_snapshot(lake, tmp_path / "here", 0.0)
    assert len(on_ray.dataset("registers").parts) > 2
    assert on_ray.content_hash == here.content_hash
    with open_snapshot(tmp_path / "ray") as snapshot:
        assert verify(snapshot).is_whole


def test_without_ray_it_runs_here(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.snapshot.job.ray.is_initialized", lambda: False)
    assert take_snapshot(lake.address, tmp_path / "s", {}).counts["edges"] == 50


def test_waits_for_the_lake(lake: Lake) -> None:
    at = lake.positions()
    wait_for_lake(lake, {p: position.number for p, position in at.partitions.items()}, 0.0)
    with pytest.raises(Unavailable, match="appender"):
        wait_for_lake(lake, {0: at.of(0).number + 1}, 0.2)
