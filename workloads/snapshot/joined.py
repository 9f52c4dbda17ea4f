"""One tenant's cases joined: things with equal (type, id) are one vertex, equal relationships count once.

Relationships are equal when type, id and both joined ends are: two cases that disagree about an end hold two
relationships. Only edges between things that several cases hold can be equal to another, so the rest is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from workloads.kernels.order import order_by, order_of, starts_of
from workloads.snapshot.graph import Ints
from workloads.snapshot.parts import Output, numbers


class Joined(NamedTuple):
    """A tenant's joined graph.

    Args:
        vertices: type, id, cases (how many hold it); row number is the joined id, ordered by type, id.
        of: joined id of each of the tenant's vertices, int64[V].
        src, dst, edge: ordered by (src, dst); `edge` is the row in the tenant's `edges`.
    """

    vertices: pl.DataFrame
    of: Ints
    src: Ints
    dst: Ints
    edge: Ints


def join_cases(vertices: pl.DataFrame, src: Ints, dst: Ints, keys: Callable[[], pl.DataFrame]) -> Joined:
    """Joins a tenant's cases.

    Args:
        vertices: type and id of each vertex, in order.
        src, dst: of each edge, counted from the tenant's first vertex, in the order of `edges`.
        keys: type and id of each edge, called only where edges may be equal.
    """
    joined, of = _things(vertices)
    ends = of[src], of[dst]
    shared = joined["cases"].to_numpy() > 1
    edge = np.flatnonzero(_first_of_equals(*ends, shared, keys))
    order = order_by(ends[0][edge], ends[1][edge], len(joined))
    edge = edge[order]
    return Joined(joined, of, ends[0][edge], ends[1][edge], edge)


def _things(vertices: pl.DataFrame) -> tuple[pl.DataFrame, Ints]:
    types = pl.Enum(vertices["type"].unique().sort())
    keyed = (
        vertices.select(pl.col("type").cast(types), "id").with_row_index("at").sort("type", "id", maintain_order=True)
    )
    differs = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("type", "id")]
    numbered = keyed.with_columns((pl.any_horizontal(differs).cum_sum().cast(pl.Int64) - 1).alias("vertex"))
    of = np.empty(len(vertices), np.int64)
    of[numbered["at"].to_numpy()] = numbered["vertex"].to_numpy()
    firsts = numbered.filter(pl.col("vertex").ne_missing(pl.col("vertex").shift(1)))
    cases = np.bincount(of, minlength=len(firsts)).astype(np.int32)
    found = firsts.select("vertex", "type", "id").with_columns(pl.Series("cases", cases))
    return found, of


def _first_of_equals(src: Ints, dst: Ints, shared: np.ndarray, keys: Callable[[], pl.DataFrame]) -> np.ndarray:
    keep = np.ones(len(src), np.bool_)
    doubtful = np.flatnonzero(shared[src] & shared[dst])
    if len(doubtful):
        ends = {"src": src[doubtful], "dst": dst[doubtful]}
        key = keys()[doubtful].select("type", "id").with_columns(pl.Series(n, v) for n, v in ends.items())
        keep[doubtful] = key.select(pl.struct("src", "dst", "type", "id").is_first_distinct()).to_series().to_numpy()
    return keep


def outputs(digest: str, joined: Joined) -> Iterator[Output]:
    """The joined graph, ready to be written; without outputs that have no rows."""
    count = len(joined.vertices)
    csc = order_of(joined.dst, count)  # by (dst, src): they come by (src, dst)
    frames = {
        "joined_vertices": joined.vertices,
        "joined_of": numbers("joined", joined.of),
        "joined_csr": pl.DataFrame({"src": joined.src, "dst": joined.dst, "edge": joined.edge}),
        "joined_csc": pl.DataFrame({"dst": joined.dst[csc], "src": joined.src[csc]}),
        "joined_csr_offsets": numbers("offset", starts_of(joined.src, count)),
        "joined_csc_offsets": numbers("offset", starts_of(joined.dst, count)),
    }
    for name, frame in frames.items():
        if len(frame):
            yield Output(name, digest, frame, [(0, len(frame))])
