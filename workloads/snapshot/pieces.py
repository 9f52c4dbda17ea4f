"""What the pieces of a range of buckets show, put together: each tenant's share of one piece after the other's."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from workloads.snapshot.graph import NOTHING, cut, ranges
from workloads.snapshot.visible import Visible


def together(pieces: Sequence[Visible]) -> Visible:
    """One range of buckets of pieces of it, in their order: at least one, each of whole cases."""
    if len(pieces) == 1:
        return pieces[0]
    at = [tuple(ranges(frame) for frame in piece) for piece in pieces]
    shares, rows = [Visible(*(frame.clear() for frame in pieces[0]))], 0  # so that there are columns when none shows
    for tenant in sorted({tenant for piece in at for of_kind in piece for tenant in of_kind}):
        for piece, of_kind in zip(pieces, at, strict=True):
            own = Visible(*(cut(frame, by.get(tenant, NOTHING)) for frame, by in zip(piece, of_kind, strict=True)))
            shares.append(_renumbered(own, rows - of_kind[0].get(tenant, NOTHING).first))
            rows += len(own.entities)
    return Visible(*(pl.concat(frames) for frames in zip(*shares, strict=True)))


def _renumbered(own: Visible, shift: int) -> Visible:
    subject = pl.when(pl.col("subject") >= 0).then(pl.col("subject") + shift).otherwise(-1)
    edges = own.edges.with_columns(pl.col("src", "dst") + shift)
    return Visible(own.entities, edges, own.claims.with_columns(subject))
