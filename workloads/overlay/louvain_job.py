"""Louvain on a running Ray cluster: one actor reads the whole graph, divides it and writes the communities."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.priority import step_aside
from cluster.config import OverlaySettings
from cluster.errors import Corrupt, Unavailable
from workloads.kernels.csr import Adjacency, Ints, check_adjacency
from workloads.kernels.louvain import louvain
from workloads.kernels.undirected import row_numbers
from workloads.overlay import row_groups
from workloads.overlay.calls import results
from workloads.overlay.input import GraphFiles
from workloads.overlay.partition import write_values
from workloads.overlay.pool import COMMUNITY_NAME, named_actor, warm
from workloads.overlay.stages import Stages

FILE = "communities-00000.parquet"


@dataclass(frozen=True, slots=True)
class LouvainRun:
    """labels: int64[vertices], the least vertex of each vertex's community. inside: int64[vertices], edges of each
    vertex to others of its community. stages: seconds of pool, plan, load, solve, write."""

    labels: Ints
    inside: Ints
    modularity: float
    files: tuple[str, ...]
    stages: dict[str, float]


def louvain_job(graph: GraphFiles, folder: Path, settings: OverlaySettings) -> LouvainRun:
    """Divide a graph, directions ignored, and write (vertex, community) into a folder. Blocks; safe to call twice.

    Raises:
        Corrupt: the files do not hold the graph that they should.
        Unavailable: the actor died `job_attempts` times, or the disk is full.
    """
    stages = Stages()
    folder.mkdir(parents=True, exist_ok=True)
    if graph.vertices == 0:
        none = np.empty(0, np.int64)
        with stages.measure("write"):
            write_values(folder / FILE, "community", none, none)
        return LouvainRun(none, none, 0.0, (FILE,), stages.seconds)
    for attempt in range(settings.job_attempts):
        try:
            return _run(graph, folder, settings, stages)
        except Unavailable:
            if attempt + 1 == settings.job_attempts:
                raise
    raise AssertionError("job_attempts is at least 1")


def _run(graph: GraphFiles, folder: Path, settings: OverlaySettings, stages: Stages) -> LouvainRun:
    with stages.measure("pool"):
        actor = named_actor(COMMUNITY_NAME, Communities)
        warm([actor], settings.job_timeout_s)
    with stages.measure("plan"):
        offsets, neighbours = row_groups.plan([graph.offsets, graph.neighbours])
    call = actor.divide.remote(graph.vertices, offsets, neighbours, settings.seed, str(folder))
    labels, inside, modularity, seconds = results([call], settings.job_timeout_s)[0]
    return LouvainRun(labels, inside, modularity, (FILE,), stages.seconds | seconds)


class Communities:
    """What the actor is made of; holds nothing between calls. Every method is safe to call twice."""

    def warm(self) -> int:
        """Compile the kernels; returns the process id."""
        step_aside()
        one = np.zeros(1, np.int64)
        louvain(one, one, 1)
        return os.getpid()

    def divide(
        self,
        vertices: int,
        offsets: row_groups.PlannedColumn,
        neighbours: row_groups.PlannedColumn,
        seed: int,
        folder: str,
    ) -> tuple[Ints, Ints, float, dict[str, float]]:
        """Read, divide, write; returns labels, edges inside, modularity and seconds of each stage.

        Raises:
            Corrupt: the files do not hold such a graph.
            Unavailable: the disk is full.
        """
        stages = Stages()
        with stages.measure("load"):
            src, dst = read_edges(vertices, offsets, neighbours)
        with stages.measure("solve"):
            found = louvain(src, dst, vertices, seed=seed)
            inside = edges_inside(src, dst, found.labels)
        with stages.measure("write"):
            write_values(Path(folder) / FILE, "community", np.arange(vertices), found.labels)
        return found.labels, inside, found.modularity, stages.seconds


def read_edges(
    vertices: int, offsets: row_groups.PlannedColumn, neighbours: row_groups.PlannedColumn
) -> tuple[Ints, Ints]:
    """The edge list of a CSC in files: src, dst int64[E]. Raises Corrupt."""
    if offsets.rows != vertices + 1:
        raise Corrupt(f"{vertices} vertices need as many offsets and one, not {offsets.rows}; verify the snapshot")
    starts = np.asarray(row_groups.read_rows(offsets, 0, offsets.rows), np.int64)
    csc = Adjacency(starts, row_groups.read_rows(neighbours, 0, neighbours.rows))
    check_adjacency(csc, vertices)
    return np.asarray(csc.indices, np.int64), row_numbers(csc)


def edges_inside(src: Ints, dst: Ints, labels: Ints) -> Ints:
    """For each vertex, its edges to other vertices of its community: int64[n]."""
    same = (labels[src] == labels[dst]) & (src != dst)
    count = np.bincount(src[same], minlength=len(labels)) + np.bincount(dst[same], minlength=len(labels))
    return count.astype(np.int64)
