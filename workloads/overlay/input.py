"""What an overlay reads: one tenant's graph over all its cases, at one moment.

`GraphFiles` says where the arrays lie and travels to the actors; `OverlayInput` adds who the vertices are. The
snapshot's reader implements it, and `edge_list.EdgeListInput` for graphs that come as files of edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.stores.places import FilePlace
from workloads.kernels.csr import Ints

Key = tuple[str, str]
"""(type, id) of an entity."""


@dataclass(frozen=True, slots=True)
class ColumnFiles:
    """One long array: a column of Parquet files, one after the other. Rows may be divided among files as one likes.

    Args:
        files: paths, or names in `place`.
    """

    column: str
    files: tuple[str, ...]
    place: FilePlace | None = None


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """In-neighbours of vertices 0..vertices-1 (CSC), each edge once.

    offsets: int64[vertices + 1], counted over the whole graph. neighbours: int32 or int64[edges], sources of edges.
    """

    vertices: int
    edges: int
    offsets: ColumnFiles
    neighbours: ColumnFiles


class Membership(NamedTuple):
    """Which entities are in which cases: row i says that `vertex[i]` is in `cases[case[i]]`; no pair twice.

    case: int32[M], vertex: int64[M].
    """

    cases: Sequence[str]
    case: NDArray[np.int32]
    vertex: Ints


class OverlayInput(Protocol):
    """A tenant's graph as overlays see it.

    Vertices are the visible entities of all cases, joined by (type, id) and numbered in that order (code points), so
    that equal snapshots number them alike and the least vertex is the least (type, id). Overlays are not in it.
    """

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def snapshot(self) -> str:
        """Id of the snapshot that it was read from."""
        ...

    @property
    def as_of(self) -> str:
        """RFC 3339 time up to which it is complete."""
        ...

    @property
    def graph(self) -> GraphFiles:
        """Where its arrays lie."""
        ...

    def keys(self, vertices: Ints) -> list[Key]:
        """(type, id) of some vertices, in their order. Blocks."""
        ...

    def find(self, keys: Sequence[Key]) -> Ints:
        """Vertices of some (type, id), in their order; -1 for one that is not there. Blocks."""
        ...

    def membership(self) -> Membership:
        """Which entities are in which cases. Blocks; linear in their number."""
        ...
