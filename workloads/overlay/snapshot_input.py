"""A tenant's graph from a snapshot: the cases joined, as the snapshot's writer joined them.

    with open_snapshot(folder) as snapshot:
        source = SnapshotInput(snapshot, "acme")

The snapshot has to stay open while a run reads it: its lock keeps the files. A tenant with nothing visible in it has
an empty graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl

from cluster.errors import Corrupt
from workloads.kernels.csr import Ints
from workloads.overlay.input import ColumnFiles, GraphFiles, Key, Membership
from workloads.snapshot.read import Snapshot

_NOBODY = pl.DataFrame(schema={"type": pl.String, "id": pl.String})


class SnapshotInput:
    """An `OverlayInput`; joined vertices are numbered by (type, id) in every snapshot."""

    def __init__(self, snapshot: Snapshot, tenant: str) -> None:
        self._snapshot = snapshot
        self.tenant = tenant
        self.snapshot = snapshot.id
        self.as_of = snapshot.manifest.as_of.time
        self._there = tenant in snapshot.tenants()

    @property
    def graph(self) -> GraphFiles:
        """Where its arrays lie."""
        if not self._there:
            return GraphFiles(0, 0, ColumnFiles("offset", ()), ColumnFiles("src", ()))
        share = self._snapshot.tenant(self.tenant)
        offsets = self._column("joined_csc_offsets", "offset")
        neighbours = self._column("joined_csc", "src") if share.joined_edges else ColumnFiles("src", ())
        return GraphFiles(share.joined_vertices, share.joined_edges, offsets, neighbours)

    def keys(self, vertices: Ints) -> list[Key]:
        """(type, id) of some vertices, in their order."""
        rows = self._names[vertices]
        return list(zip(rows["type"].to_list(), rows["id"].to_list(), strict=True))

    def find(self, keys: Sequence[Key]) -> Ints:
        """Vertices of some (type, id), in their order; -1 for one that is not there."""
        wanted = pl.DataFrame(list(keys), schema={"type": pl.String, "id": pl.String}, orient="row")
        names = self._names.with_row_index("vertex")
        found = wanted.join(names, on=["type", "id"], how="left", maintain_order="left")
        return found["vertex"].cast(pl.Int64).fill_null(-1).to_numpy()

    def membership(self) -> Membership:
        """Which entities are in which cases. Raises Corrupt if the snapshot's files contradict each other."""
        if not self._there:
            return Membership((), np.empty(0, np.int32), np.empty(0, np.int64))
        column = self._snapshot.vertices(self.tenant, ["case"])["case"]
        vertex = self._snapshot.array("joined_of", self.tenant, "joined")
        if len(column) != len(vertex):
            raise Corrupt(f"snapshot {self.snapshot}: {len(column)} entities, {len(vertex)} joined; verify it")
        cases = column.unique().sort()
        case = column.cast(pl.Enum(cases)).to_physical().cast(pl.Int32).to_numpy()
        return Membership(cases.to_list(), case, vertex)

    @cached_property
    def _names(self) -> pl.DataFrame:
        return self._snapshot.tenant_vertices(self.tenant, ["type", "id"]) if self._there else _NOBODY

    def _column(self, dataset: str, column: str) -> ColumnFiles:
        names = tuple(file.name for file in self._snapshot.parts(dataset, self.tenant))
        return ColumnFiles(column, names, self._snapshot.place)
