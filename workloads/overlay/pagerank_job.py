"""PageRank on a running Ray cluster, from Parquet to ranks on disk.

    pool    actors by name, warm          plan    row groups, by Ray Data
    load    each actor reads its slice    solve   contributions out, new ranks back, until they settle
    write   each actor writes its part

The coordinator holds a few vectors of float64[vertices]; the edges are in the actors. The result is the same bits for
any number of actors (workloads.kernels.pagerank).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.config import OverlaySettings
from cluster.errors import Corrupt, Unavailable
from workloads.kernels.csr import Floats, VertexRange, partition_by_edges
from workloads.kernels.pagerank import base_mass, inverse_weights, settle, teleport_vector
from workloads.kernels.threads import Sweep, sweeper
from workloads.overlay import row_groups
from workloads.overlay.calls import results
from workloads.overlay.input import GraphFiles
from workloads.overlay.partition import write_values
from workloads.overlay.pool import cluster_cores, partition_actors, parts_for
from workloads.overlay.stages import Stages


@dataclass(frozen=True, slots=True)
class PageRankRun:
    """ranks: float64[vertices], sum 1. files: names of the Parquet files (vertex, rank) in the folder, in order.

    converged: False when the limit of iterations came first. stages: seconds of pool, plan, load, solve, write.
    """

    ranks: Floats
    iterations: int
    converged: bool
    residual: float
    files: tuple[str, ...]
    parts: int
    stages: dict[str, float]


def pagerank_job(
    graph: GraphFiles,
    folder: Path,
    settings: OverlaySettings,
    *,
    personalisation: Floats | None = None,
    parts: int | None = None,
) -> PageRankRun:
    """Rank a graph and write the ranks into a folder, which every node can reach. Blocks; safe to call twice.

    settings: damping; iterate until the L1 change is below vertices * tolerance, or iterations_max times.
    personalisation: float64[vertices], as in the kernel. parts: how many actors, else chosen by edges and cores.

    Raises:
        Rejected: settings or personalisation out of bounds.
        Corrupt: the files do not hold the graph that they should.
        Unavailable: actors died `job_attempts` times, or the disk is full.
    """
    teleport = teleport_vector(personalisation, graph.vertices)
    stages = Stages()
    folder.mkdir(parents=True, exist_ok=True)
    if graph.vertices == 0:
        with stages.measure("write"):
            write_values(folder / "ranks-00000.parquet", "rank", np.empty(0, np.int64), np.empty(0))
        return PageRankRun(np.empty(0), 0, True, 0.0, ("ranks-00000.parquet",), 0, stages.seconds)
    wanted = parts or parts_for(
        graph.edges, cluster_cores(), settings.edges_per_partition, settings.partition_actors_max
    )
    for attempt in range(settings.job_attempts):
        try:
            return _Job(graph, folder, settings, teleport, stages).run(wanted)
        except Unavailable:
            if attempt + 1 == settings.job_attempts:
                raise
    raise AssertionError("job_attempts is at least 1")


class _Job:
    """One attempt."""

    def __init__(
        self, graph: GraphFiles, folder: Path, settings: OverlaySettings, teleport: Floats | None, stages: Stages
    ) -> None:
        self.graph, self.folder, self.settings, self.teleport = graph, folder, settings, teleport
        self.name, self.stages = uuid.uuid4().hex, stages

    def run(self, parts: int) -> PageRankRun:
        with self.stages.measure("pool"):
            actors = partition_actors(parts, self.settings.job_timeout_s)
        with self.stages.measure("plan"):
            offsets, neighbours = row_groups.plan([self.graph.offsets, self.graph.neighbours])
            ranges = self._ranges(offsets, neighbours, parts)
        try:
            with self.stages.measure("load"):
                inverse = self._load(actors, ranges, offsets, neighbours)
            with self.stages.measure("solve"), sweeper() as sweep:
                ranks, iterations, residual = self._solve(actors, ranges, inverse, sweep)
            with self.stages.measure("write"):
                files = self._all([a.write.remote(self.name, str(self.folder), k) for k, a in enumerate(actors)])
        finally:
            for actor in actors:
                actor.release.remote(self.name)
        converged = residual < self.graph.vertices * self.settings.tolerance
        return PageRankRun(ranks, iterations, converged, residual, tuple(files), parts, self.stages.seconds)

    def _ranges(
        self, offsets: row_groups.PlannedColumn, neighbours: row_groups.PlannedColumn, parts: int
    ) -> list[VertexRange]:
        graph = self.graph
        if offsets.rows != graph.vertices + 1 or neighbours.rows != graph.edges:
            raise Corrupt(
                f"the graph should have {graph.vertices} vertices and {graph.edges} edges, but its files hold"
                f" {offsets.rows} offsets and {neighbours.rows} neighbours; verify the snapshot"
            )
        if parts == 1:
            return [VertexRange(0, graph.vertices)]
        return partition_by_edges(np.asarray(row_groups.read_rows(offsets, 0, offsets.rows), np.int64), parts)

    def _load(
        self,
        actors: Sequence[Any],
        ranges: Sequence[VertexRange],
        offsets: row_groups.PlannedColumn,
        neighbours: row_groups.PlannedColumn,
    ) -> Floats:
        calls = [
            actor.load.remote(self.name, part, self.graph.vertices, offsets, neighbours, self._share(part))
            for actor, part in zip(actors, ranges, strict=True)
        ]
        counts = self._all(calls)
        total = counts[0] if len(counts) == 1 else np.sum(counts, axis=0)
        return inverse_weights(total)

    def _share(self, part: VertexRange) -> Floats | None:
        return None if self.teleport is None else self.teleport[part.first : part.last]

    def _solve(
        self, actors: Sequence[Any], ranges: Sequence[VertexRange], inverse: Floats, sweep: Sweep
    ) -> tuple[Floats, int, float]:
        vertices, damping = self.graph.vertices, self.settings.damping
        ranks, spare, contribution = np.full(vertices, 1.0 / vertices), np.empty(vertices), np.empty(vertices)
        settled = settle(ranks, ranks, inverse, contribution, sweep)
        done = 0
        while done < self.settings.iterations_max:
            base = base_mass(settled.dangling, damping, vertices, self.teleport)
            shared = ray.put(contribution)
            pieces = self._all([actor.pull.remote(self.name, shared, base, damping) for actor in actors])
            for part, piece in zip(ranges, pieces, strict=True):
                spare[part.first : part.last] = piece
            ranks, spare = spare, ranks
            settled = settle(spare, ranks, inverse, contribution, sweep)
            done += 1
            if settled.residual < vertices * self.settings.tolerance:
                break
        return ranks, done, settled.residual

    def _all(self, calls: Sequence[Any]) -> list[Any]:
        return results(calls, self.settings.job_timeout_s)
