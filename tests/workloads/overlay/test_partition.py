"""A partition without Ray: slices, what it forgets, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import Corrupt, Unavailable
from tests.workloads.kernels.graphs import rmat
from workloads.kernels.csr import VertexRange, build_csc, out_weights
from workloads.overlay.edge_list import prepare
from workloads.overlay.input import GraphFiles
from workloads.overlay.partition import JOBS_HELD, Partition
from workloads.overlay.row_groups import PlannedColumn, plan_here


@pytest.fixture
def files(tmp_path: Path) -> GraphFiles:
    edges = rmat(6, 4, seed=3)
    return prepare(edges.src, edges.dst, edges.vertices, tmp_path)


def planned(files: GraphFiles) -> tuple[PlannedColumn, PlannedColumn]:
    offsets, neighbours = plan_here([files.offsets, files.neighbours])
    return offsets, neighbours


def test_slices_count_what_the_whole_counts(files: GraphFiles) -> None:
    edges = rmat(6, 4, seed=3)
    parts = [VertexRange(0, 20), VertexRange(20, 20), VertexRange(20, 64)]
    counted = sum(Partition().load("job", part, 64, *planned(files)) for part in parts)
    assert np.array_equal(counted, out_weights(build_csc(edges.src, edges.dst, 64)))


def test_a_slice_that_is_gone_is_retryable(files: GraphFiles, tmp_path: Path) -> None:
    partition, part = Partition(), VertexRange(0, 64)
    for job in range(JOBS_HELD + 1):
        partition.load(str(job), part, 64, *planned(files))
    with pytest.raises(Unavailable, match="begins again"):
        partition.pull("0", np.zeros(64), 0.0, 0.85)
    partition.pull("1", np.zeros(64), 1.0, 0.85)
    partition.release("1")
    partition.release("1")
    with pytest.raises(Unavailable):
        partition.write("1", str(tmp_path), 0)


def test_the_job_used_last_stays(files: GraphFiles) -> None:
    partition, part = Partition(), VertexRange(0, 64)
    partition.load("old", part, 64, *planned(files))
    partition.load("mid", part, 64, *planned(files))
    partition.pull("old", np.zeros(64), 0.0, 0.85)
    partition.load("new", part, 64, *planned(files))
    partition.pull("old", np.zeros(64), 0.0, 0.85)
    with pytest.raises(Unavailable):
        partition.pull("mid", np.zeros(64), 0.0, 0.85)


def test_neighbours_outside_the_graph_are_refused(files: GraphFiles) -> None:
    with pytest.raises(Corrupt, match="outside"):
        Partition().load("job", VertexRange(0, 64), 10, *planned(files))


def test_writes_its_range(files: GraphFiles, tmp_path: Path) -> None:
    partition = Partition()
    partition.load("job", VertexRange(10, 12), 64, *planned(files))
    ranks = partition.pull("job", np.zeros(64), 0.25, 0.85)
    name = partition.write("job", str(tmp_path), 3)
    assert name == "ranks-00003.parquet"
    table = pq.read_table(tmp_path / name)
    assert table.to_pydict() == {"vertex": [10, 11], "rank": ranks.tolist()}
