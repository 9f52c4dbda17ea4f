"""A partition of a graph: one range of vertices and the edges into it, as arrays of one process.

`Partition` is what an actor of the pool is made of; it imports no Ray, so that tests can call it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.priority import step_aside
from cluster.errors import Unavailable
from cluster.stores.files import disk_errors, fsync_folder
from workloads.kernels.csr import (
    INT32_VERTICES,
    Adjacency,
    Floats,
    Indices,
    Ints,
    VertexRange,
    build_csc,
    check_adjacency,
    out_weights,
)
from workloads.kernels.pagerank import pagerank, pull_range
from workloads.overlay.row_groups import PlannedColumn, read_rows

JOBS_HELD = 2
"""Slices that one actor keeps; the least recently used one goes when another job loads."""


@dataclass(slots=True)
class _Held:
    part: VertexRange
    edges: Adjacency
    teleport: Floats | None
    ranks: Floats


class Partition:
    """Slices of graphs by job. One call at a time; every method is safe to call twice."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def warm(self) -> int:
        """Compile the kernels, or load what was compiled before; returns the process id."""
        step_aside()
        one = np.zeros(1, np.int64)
        csc = build_csc(one, one, 1)
        pagerank(csc, max_iter=1, threads=1)
        check_adjacency(csc, 1)
        return os.getpid()

    def load(
        self,
        job: str,
        part: VertexRange,
        vertices: int,
        offsets: PlannedColumn,
        neighbours: PlannedColumn,
        teleport: Floats | None = None,
    ) -> Floats:
        """Read a range's edges from the files; returns how many of them leave each vertex: float64[vertices].

        part: vertices first..last-1. teleport: float64[last - first], the range's share of a personalisation.

        Raises:
            Corrupt: the files do not hold such a graph.
        """
        own = np.asarray(read_rows(offsets, part.first, part.last + 1), np.int64)
        read = read_rows(neighbours, int(own[0]), int(own[-1]))
        check_adjacency(Adjacency(own, read), vertices)
        edges = Adjacency(own, as_indices(read, vertices))
        self._held.pop(job, None)
        while len(self._held) >= JOBS_HELD:
            self._held.popitem(last=False)
        self._held[job] = _Held(part, edges, teleport, np.empty(part.last - part.first))
        return out_weights(edges, vertices)

    def pull(self, job: str, contribution: Floats, base: float, damping: float) -> Floats:
        """One iteration: new ranks of the range, float64[last - first]. contribution: float64[vertices].

        Raises:
            Unavailable: the slice is not here (the actor was restarted, or other jobs took its place).
        """
        held = self._slice(job)
        pull_range(
            held.edges.offsets, held.edges.indices, contribution, held.ranks, base, damping, teleport=held.teleport
        )
        return held.ranks

    def write(self, job: str, folder: str, number: int) -> str:
        """Write the last ranks of the range, durably, as `ranks-<number>.parquet`; returns the file's name.

        Raises:
            Unavailable: the slice is not here, or the disk is full.
        """
        held = self._slice(job)
        name = f"ranks-{number:05d}.parquet"
        vertex = np.arange(held.part.first, held.part.last)
        write_values(Path(folder) / name, "rank", vertex, held.ranks)
        return name

    def release(self, job: str) -> None:
        """Forget a job's slice."""
        self._held.pop(job, None)

    def _slice(self, job: str) -> _Held:
        held = self._held.get(job)
        if held is None:
            raise Unavailable(f"overlay job {job}: its slice is not in this actor any more; it begins again", 0.1)
        self._held.move_to_end(job)
        return held


def as_indices(neighbours: Ints, vertices: int) -> Indices:
    """Neighbours as int32 where that holds them: iterations read half the bytes. Values are not checked."""
    return neighbours.astype(np.int32, copy=False) if vertices < INT32_VERTICES else neighbours


def write_values(path: Path, column: str, vertex: Ints, values: Floats | Ints) -> None:
    """Write (vertex, value) as Parquet, durably. An older file of the name is replaced.

    Raises:
        Unavailable: the disk is full.
    """
    with disk_errors("overlay results", path.parent):
        with path.open("wb") as file:
            table = pa.table({"vertex": vertex, column: values})
            pq.write_table(table, file, use_dictionary=False, compression="none", store_schema=False)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(path.parent)
