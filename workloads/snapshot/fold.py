"""The fold over columns: what `cluster.fold.Fold` does one record at a time, for millions.

Equal to it on every set of records (a test with Hypothesis holds the two against each other). Order, batches and
repetition of the records do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from cluster import batch
from cluster.fold import Floors, Fold, Priorities
from cluster.model import Kind
from workloads.snapshot.keys import categories, coded, with_keys
from workloads.snapshot.parts import rows_by_slot

COLUMNS = batch.SCHEMA.names
KEY_COLUMNS = ("_prefix", "_a", "_b")


class Rules(NamedTuple):
    """What holds for every register: floors and priorities of sources."""

    floors: Floors
    priorities: Priorities

    @staticmethod
    def none() -> Rules:
        """No floors, no priorities."""
        return Rules(Floors(), Priorities())


def fold_rules(floors: pl.DataFrame, priorities: pl.DataFrame, events: pl.DataFrame | None = None) -> Rules:
    """Floors and priorities of a previous snapshot, and records of them since."""
    fold = Fold()
    for tenant, source, type, version in floors.iter_rows():
        fold.floors.raise_to(tenant, source, type, version)
    for tenant, source, stamp, priority in priorities.iter_rows():
        fold.priorities.set(tenant, source, stamp, priority)
    if events is not None:
        ours = events.filter(pl.col("kind") >= int(Kind.FLOOR)).unique(["tenant", "source", "type", "stamp", "kind"])
        fold.apply_all(batch.from_arrow(to_batch(ours)))
    return Rules(fold.floors, fold.priorities)


def to_batch(frame: pl.DataFrame) -> pa.Table:
    """Rows in the columns of a batch, as Arrow."""
    texts = [pl.col(f.name).cast(pl.String) if f.type == pa.string() else pl.col(f.name) for f in batch.SCHEMA]
    return frame.select(texts).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(batch.SCHEMA)


def floors_frame(floors: Floors) -> pl.DataFrame:
    """Floors as rows, sorted."""
    rows = sorted((*key, version) for key, version in floors.items())
    names = ("tenant", "source", "type", "version")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def priorities_frame(priorities: Priorities) -> pl.DataFrame:
    """Priorities as rows, sorted."""
    rows = sorted((*key, *value) for key, value in priorities.items())
    schema = {"tenant": pl.String, "source": pl.String, "stamp": pl.String, "priority": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def fold_registers(previous: pl.DataFrame, events: pl.DataFrame, floors: Floors) -> pl.DataFrame:
    """The newest record of each register that no floor hides.

    Args:
        previous: registers of an earlier fold; may be empty.
        events: records of entities, relationships and claims; columns of few values may be categories (`keys`).

    Returns:
        COLUMNS (coded, see `keys`) and KEY_COLUMNS, ordered by bucket, tenant, case, kind, type, id, source.
    """
    rows, order = _ordered(previous, events, floors)
    return rows[order]


def fold_in_pieces(
    previous: pl.DataFrame, events: pl.DataFrame, floors: Floors, piece_rows: int
) -> Iterator[pl.DataFrame]:
    """The same in pieces, cut between slots: of `piece_rows` or a few more, or one slot that has more. At least one.

    What is done with a piece before the next one is asked for finds it in the cache, and its memory is used again.
    """
    rows, order = _ordered(previous, events, floors)
    first, upto = 0, 0
    for _, count in rows_by_slot(rows["bucket"][order]):
        upto += count
        if upto - first >= piece_rows:
            yield rows[order[first:upto]]
            first = upto
    if first < upto or not upto:
        yield rows[order[first:upto]]


def _ordered(previous: pl.DataFrame, events: pl.DataFrame, floors: Floors) -> tuple[pl.DataFrame, pl.Series]:
    """Records with keys, and which of them are registers, in their order."""
    casts = [pl.col(name).cast(kind) for name, kind in categories(events).items()]
    rows = pl.concat([frame.select(COLUMNS).with_columns(casts) for frame in (previous, events)])
    rows = with_keys(coded(drop_hidden(rows, floors)))
    keyed = rows.select("_prefix", "id", pl.col("source").to_physical().alias("_source"), "stamp")
    order = keyed.select(pl.arg_sort_by("_prefix", "id", "_source", "stamp", maintain_order=True)).to_series()
    return rows, order.filter(_ends_run(keyed.select("_prefix", "id", "_source")[order]))


def _ends_run(keyed: pl.DataFrame) -> pl.Series:
    """Whether a row is the last of its register, in rows sorted by register and stamp."""
    same = [pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in ("_prefix", "_source", "id")]
    return keyed.select(~pl.all_horizontal(same)).to_series()


def drop_hidden(rows: pl.DataFrame, floors: Floors) -> pl.DataFrame:
    """Rows that no floor of their source hides, in any order."""
    known = floors_frame(floors).cast({name: rows.schema[name] for name in ("tenant", "source", "type")})
    if known.is_empty():
        return rows
    floored = pl.col("source").is_in(known["source"].unique())
    every = known.filter(pl.col("type").cast(pl.String) == "").select(
        "tenant", "source", pl.col("version").alias("_every")
    )
    own = known.select("tenant", "source", "type", pl.col("version").alias("_own"))
    touched = rows.filter(floored).join(every, on=["tenant", "source"], how="left")
    touched = touched.join(own, on=["tenant", "source", "type"], how="left")
    hidden = (pl.col("stamp") < pl.col("_every")).fill_null(value=False) | (pl.col("stamp") < pl.col("_own")).fill_null(
        value=False
    )
    return pl.concat([rows.filter(~floored), touched.filter(~hidden).select(rows.columns)])
