"""The Louvain job on a running node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.config import OverlaySettings
from cluster.errors import Corrupt
from tests.workloads.kernels.graphs import rmat
from workloads.kernels.louvain import louvain
from workloads.kernels.undirected import modularity
from workloads.overlay.edge_list import prepare
from workloads.overlay.input import ColumnFiles, GraphFiles
from workloads.overlay.louvain_job import edges_inside, louvain_job, read_edges
from workloads.overlay.row_groups import plan_here

SETTINGS = OverlaySettings(seed=5)


@pytest.mark.services
def test_gives_what_the_kernel_gives(ray_node: None, tmp_path: Path) -> None:
    edges = rmat(8, 4, seed=4)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    run = louvain_job(files, tmp_path / "out", SETTINGS)
    kernel = louvain(*read_edges(files.vertices, *plan_here([files.offsets, files.neighbours])), files.vertices, seed=5)
    assert np.array_equal(run.labels, kernel.labels)
    assert run.modularity == pytest.approx(modularity(edges.src, edges.dst, run.labels))
    table = pq.read_table(tmp_path / "out" / run.files[0])
    assert table.to_pydict() == {"vertex": list(range(edges.vertices)), "community": run.labels.tolist()}
    again = louvain_job(files, tmp_path / "again", SETTINGS)
    assert np.array_equal(again.labels, run.labels)


def test_an_empty_graph(tmp_path: Path) -> None:
    none = GraphFiles(0, 0, ColumnFiles("offset", ()), ColumnFiles("neighbour", ()))
    run = louvain_job(none, tmp_path, SETTINGS)
    assert len(run.labels) == 0
    assert pq.read_metadata(tmp_path / run.files[0]).num_rows == 0


def test_reads_back_the_edge_list(tmp_path: Path) -> None:
    edges = rmat(6, 4, seed=9)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    offsets, neighbours = plan_here([files.offsets, files.neighbours])
    src, dst = read_edges(files.vertices, offsets, neighbours)
    assert sorted(zip(src, dst, strict=True)) == sorted(zip(edges.src, edges.dst, strict=True))
    with pytest.raises(Corrupt, match="offsets"):
        read_edges(files.vertices - 1, offsets, neighbours)


def test_counts_edges_inside_both_ways_without_loops() -> None:
    src, dst = np.array([0, 0, 1, 2, 2]), np.array([1, 1, 2, 2, 0])
    assert edges_inside(src, dst, np.array([0, 0, 2])).tolist() == [2, 2, 0]
