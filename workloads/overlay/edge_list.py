"""Graphs that come as files of edges: turned into CSC files once, then an `OverlayInput` like a snapshot.

prepare(src, dst, vertices, folder)       writes offsets.parquet and neighbours.parquet
EdgeListInput(tenant, …, graph, keys)     for researchers' own data, benchmarks and tests
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workloads.kernels.csr import Ints, build_csc
from workloads.overlay.input import ColumnFiles, GraphFiles, Key, Membership

ROW_GROUP_ROWS = 1 << 20


def prepare(src: Ints, dst: Ints, vertices: int, folder: Path) -> GraphFiles:
    """Write the graph's CSC into a folder; every edge as given, parallel ones too. Safe to call twice.

    src, dst: int64[E] within 0..vertices-1, else ValueError.
    """
    csc = build_csc(src, dst, vertices)
    folder.mkdir(parents=True, exist_ok=True)
    offsets = _write(folder / "offsets.parquet", "offset", csc.offsets)
    neighbours = _write(folder / "neighbours.parquet", "neighbour", csc.indices)
    return GraphFiles(vertices, csc.edges, offsets, neighbours)


def _write(path: Path, column: str, values: object) -> ColumnFiles:
    # Neither dictionaries nor compression: neighbours of a vertex are as good as random numbers.
    pq.write_table(
        pa.table({column: pa.array(values)}),
        path,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=False,
        compression="none",
    )
    return ColumnFiles(column, (str(path),))


@dataclass(frozen=True)
class EdgeListInput:
    """An `OverlayInput` over prepared files.

    names: (type, id) of vertices 0..n-1, in increasing order. in_cases: vertices of each case, each once.
    """

    tenant: str
    snapshot: str
    as_of: str
    graph: GraphFiles
    names: list[Key]
    in_cases: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        if self.names != sorted(set(self.names)) or len(self.names) != self.graph.vertices:
            raise ValueError(f"give {self.graph.vertices} distinct names, in order")

    def keys(self, vertices: Ints) -> list[Key]:
        """(type, id) of some vertices."""
        return [self.names[vertex] for vertex in vertices.tolist()]

    def find(self, keys: Sequence[Key]) -> Ints:
        """Vertices of some (type, id); -1 for one that is not there."""
        places = [bisect_left(self.names, key) for key in keys]
        found = [at if self.names[at : at + 1] == [key] else -1 for at, key in zip(places, keys, strict=True)]
        return np.array(found, np.int64)

    def membership(self) -> Membership:
        """Which entities are in which cases."""
        cases = sorted(self.in_cases)
        counts = [len(self.in_cases[case]) for case in cases]
        vertex = np.array([v for case in cases for v in self.in_cases[case]], np.int64)
        return Membership(cases, np.repeat(np.arange(len(cases), dtype=np.int32), counts), vertex)
