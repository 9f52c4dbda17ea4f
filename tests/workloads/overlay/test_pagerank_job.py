"""The PageRank job on a running node: networkx's ranks, the kernel's bits, and what it survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from cluster.config import OverlaySettings
from cluster.errors import Corrupt, Rejected, Unavailable
from tests.workloads.kernels.graphs import Edges, networkx_graph, rmat
from workloads.kernels.csr import build_csc
from workloads.kernels.pagerank import pagerank
from workloads.overlay import pagerank_job as module
from workloads.overlay.edge_list import prepare
from workloads.overlay.input import ColumnFiles, GraphFiles
from workloads.overlay.pagerank_job import pagerank_job
from workloads.overlay.pool import PARTITION_NAME, partition_actors, parts_for

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("ray_node")]
SETTINGS = OverlaySettings(tolerance=1e-13, iterations_max=500)


def ranks_on_disk(folder: Path, files: tuple[str, ...]) -> Any:
    tables = [pq.read_table(folder / name) for name in files]
    vertex = np.concatenate([table["vertex"].to_numpy() for table in tables])
    assert np.array_equal(vertex, np.arange(len(vertex)))
    return np.concatenate([table["rank"].to_numpy() for table in tables])


def small() -> Edges:
    """Dangling vertices, self-loops, parallel edges, isolated vertices."""
    src = np.array([0, 0, 1, 1, 1, 2, 3, 3, 5, 5, 5, 8])
    dst = np.array([1, 1, 1, 2, 3, 0, 4, 4, 5, 0, 6, 2])
    return Edges(11, src, dst, np.ones(len(src)))


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("personal", [False, True])
def test_agrees_with_networkx(tmp_path: Path, parts: int, personal: bool) -> None:
    for number, edges in enumerate((small(), rmat(9, 4, seed=7))):
        chosen = np.arange(edges.vertices, dtype=np.float64) % 3 if personal else None
        files = prepare(edges.src, edges.dst, edges.vertices, tmp_path / f"graph-{number}")
        run = pagerank_job(files, tmp_path / f"out-{number}", SETTINGS, personalisation=chosen, parts=parts)
        weights = None if chosen is None else dict(enumerate(chosen.tolist()))
        graph = networkx_graph(edges, directed=True, weighted=False)
        wanted = nx.pagerank(graph, alpha=0.85, personalization=weights, tol=1e-13, max_iter=500)
        np.testing.assert_allclose(run.ranks, [wanted[v] for v in range(edges.vertices)], rtol=0, atol=1e-9)
        assert run.converged
        assert run.parts == len(run.files) == parts
        assert ranks_on_disk(tmp_path / f"out-{number}", run.files).tobytes() == run.ranks.tobytes()


def test_any_number_of_actors_gives_the_bits_of_the_kernel(tmp_path: Path) -> None:
    edges = rmat(14, 4, seed=2)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    whole = pagerank(build_csc(edges.src, edges.dst, edges.vertices), tol=1e-10, max_iter=200)
    for parts in (1, 2, 4):
        run = pagerank_job(files, tmp_path / str(parts), OverlaySettings(tolerance=1e-10), parts=parts)
        assert run.ranks.tobytes() == whole.ranks.tobytes()
        assert (run.iterations, run.residual) == (whole.iterations, whole.residual)
        assert set(run.stages) == {"pool", "plan", "load", "solve", "write"}


def test_an_empty_graph_and_one_without_edges(tmp_path: Path) -> None:
    none = GraphFiles(0, 0, ColumnFiles("offset", ()), ColumnFiles("neighbour", ()))
    run = pagerank_job(none, tmp_path / "none", SETTINGS)
    assert run.converged
    assert len(ranks_on_disk(tmp_path / "none", run.files)) == 0
    empty = np.empty(0, np.int64)
    files = prepare(empty, empty, 4, tmp_path / "graph")
    run = pagerank_job(files, tmp_path / "out", SETTINGS, parts=2)
    np.testing.assert_allclose(run.ranks, 0.25)


def test_the_limit_of_iterations_is_not_convergence(tmp_path: Path) -> None:
    edges = rmat(8, 4, seed=1)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    run = pagerank_job(files, tmp_path / "out", OverlaySettings(tolerance=0.0, iterations_max=5))
    assert (run.iterations, run.converged) == (5, False)


def test_begins_again_when_an_actor_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = rmat(8, 4, seed=1)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    calm = pagerank_job(files, tmp_path / "calm", SETTINGS, parts=2)
    killed: list[int] = []
    put = ray.put

    def deadly(value: Any) -> Any:
        if len(killed) == 0:
            killed.append(1)
            ray.kill(ray.get_actor(PARTITION_NAME.format(1), "intelgraph"), no_restart=False)
        return put(value)

    monkeypatch.setattr(module.ray, "put", deadly)
    run = pagerank_job(files, tmp_path / "out", SETTINGS, parts=2)
    assert killed
    assert run.ranks.tobytes() == calm.ranks.tobytes()


def test_actors_that_have_just_died_are_waited_for() -> None:
    for _ in range(3):
        (actor,) = partition_actors(1, 120)
        ray.kill(actor, no_restart=False)
    assert partition_actors(1, 120)


def test_gives_up_after_its_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = rmat(8, 4, seed=1)
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    tried: list[int] = []

    def dead(*arguments: Any) -> Any:
        tried.append(1)
        raise Unavailable("dead")

    monkeypatch.setattr(module, "partition_actors", dead)
    with pytest.raises(Unavailable):
        pagerank_job(files, tmp_path / "out", OverlaySettings(job_attempts=3))
    assert len(tried) == 3


def test_files_that_are_not_the_graph_are_refused(tmp_path: Path) -> None:
    edges = small()
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    for wrong in (
        GraphFiles(files.vertices + 1, files.edges, files.offsets, files.neighbours),
        GraphFiles(files.vertices, files.edges - 1, files.offsets, files.neighbours),
    ):
        with pytest.raises(Corrupt, match="verify the snapshot"):
            pagerank_job(wrong, tmp_path / "out", SETTINGS)
    with pytest.raises(Rejected, match="personalisation"):
        pagerank_job(files, tmp_path / "out", SETTINGS, personalisation=np.zeros(files.vertices))


def test_errors_of_actors_come_as_they_are(tmp_path: Path) -> None:
    edges = small()
    files = prepare(edges.src, edges.dst, edges.vertices, tmp_path)
    wild = prepare(edges.src, edges.dst, 100, tmp_path / "wild")
    mixed = GraphFiles(files.vertices, files.edges, files.offsets, wild.neighbours)
    assert pagerank_job(mixed, tmp_path / "out", SETTINGS).converged  # the same neighbours: nothing is wrong yet
    shifted = prepare(edges.src + 50, edges.dst + 50, 100, tmp_path / "shifted")
    with pytest.raises(Corrupt, match="outside"):
        pagerank_job(
            GraphFiles(files.vertices, files.edges, files.offsets, shifted.neighbours), tmp_path / "out", SETTINGS
        )


@pytest.mark.parametrize(("edges", "cores", "parts"), [(0, 8, 1), (10, 8, 1), (11, 8, 2), (1000, 8, 8), (1000, 99, 16)])
def test_actors_by_edges(edges: int, cores: int, parts: int) -> None:
    assert parts_for(edges, cores, edges_per_part=10, parts_max=16) == parts
