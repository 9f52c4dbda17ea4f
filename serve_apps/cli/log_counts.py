"""What the log holds, counted apart from everything that shards and loads say of themselves.

Rows come from the lake's data files and, behind them, from the log's entries. Each entry counts once, by its number; a
record that was appended twice is in two entries: twice among `records`, once among `distinct`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from cluster import batch, versions
from cluster.errors import Unavailable
from cluster.model import Kind
from cluster.stores.control_dead_letters import LetterPlace
from cluster.stores.lake_wanted import Wanted
from cluster.stores.log import EventLog

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

Epoch = tuple[str, str, int]
"""(tenant, source, the source's epoch)."""
_COLUMNS = ("tenant", "source", "kind", "case", "type", "id", "stamp")
_KEY = ("tenant", "source", "epoch")
_READ_ENTRIES, _READ_BYTES = 256, 16 << 20
_WIDTHS = {letter: number for number, letter in enumerate(versions.LETTERS, 1)}
_UNDO = versions.encode(0, [versions.MAX_INTEGER])[2:]
"""What the position of an undo's records begins with (actors/undo.py)."""


class Counted(NamedTuple):
    """Records of one source epoch in the log.

    Args:
        records: all of them, however often.
        distinct: different ones; without those that an undo said again.
        at_letters: of the distinct ones, those at the place of a dead letter: replayed, or read again.
    """

    records: int = 0
    distinct: int = 0
    at_letters: int = 0

    def __add__(self, other: Counted) -> Counted:  # type: ignore[override]
        return Counted(*map(sum, zip(self, other, strict=True)))


def rows_of(log: EventLog, lake: Lake | None, version: int | None, partition: int, upto: int) -> pl.DataFrame:
    """Records (no floors, no priorities) in entries 1 … upto of a log partition, all in memory.

    Raises:
        Unavailable: the lake is ahead of what is asked; try again.
    """
    frames, at = [], 0
    if lake is not None:
        at = lake.positions(version).of(partition).number
        if at > upto:
            raise Unavailable(f"log partition {partition}: the lake went on while this was counted; try again", 1.0)
        frames.append(lake.events(Wanted(partition=partition, most_kind=int(Kind.CLAIM)), _COLUMNS, version))
    frames += [found for found in _behind(log, partition, at, upto) if len(found)]
    return pl.concat(frames, how="vertical") if frames else pl.DataFrame(schema=dict.fromkeys(_COLUMNS, pl.String))


def _behind(log: EventLog, partition: int, at: int, upto: int) -> Iterator[pl.DataFrame]:
    while at < upto:
        for entry in log.read(partition, at, _READ_ENTRIES, _READ_BYTES):
            at = entry.number
            if at > upto:
                return
            rows = pl.DataFrame(pl.from_arrow(batch.decode_arrow(entry.data)))
            yield rows.filter(pl.col("kind") <= int(Kind.CLAIM)).select(_COLUMNS)


def count(rows: pl.DataFrame, letters: Iterable[LetterPlace]) -> Mapping[Epoch, Counted]:
    """Records by source epoch. All rows of a thing have to be among `rows`: of one log partition, or of a group of them
    (`ShardMap.groups`)."""
    if rows.is_empty():
        return {}
    version = pl.col("stamp").str.split(".").list.first()
    first = _width("version", pl.lit(0))
    second = _width("version", 1 + pl.col("first"))
    parsed = (
        rows.select("tenant", "source", "stamp", _thing(), version=version)
        .with_columns(first=first)
        .with_columns(second=second)
        .with_columns(
            epoch=pl.col("version").str.slice(0, 1 + pl.col("first")),
            row=pl.col("version").str.slice(0, 2 + pl.col("first") + pl.col("second")),
            undo=pl.col("version").str.slice(1 + pl.col("first"), len(_UNDO)) == _UNDO,
        )
    )
    places = pl.DataFrame(
        [(place.tenant, place.source, place.version) for place in letters],
        schema={"tenant": pl.String, "source": pl.String, "version": pl.String}, orient="row",
    )  # fmt: skip
    rows_at = places.unique().rename({"version": "row"}).with_columns(by_row=True)
    known = parsed.join(rows_at, ["tenant", "source", "row"], "left")
    known = known.join(places.unique().with_columns(exactly=True), ["tenant", "source", "version"], "left")
    said = ~pl.col("undo")
    at_letter = (pl.col("by_row") | pl.col("exactly")).fill_null(False) & said
    each = pl.col("thing")
    counted = known.group_by(_KEY).agg(
        records=pl.len(), distinct=each.filter(said).n_unique(), at_letters=each.filter(at_letter).n_unique()
    )
    return {
        (tenant, source, versions.epoch_of(epoch)): Counted(*numbers)
        for tenant, source, epoch, *numbers in counted.select(*_KEY, "records", "distinct", "at_letters").iter_rows()
    }


def _width(column: str, at: pl.Expr) -> pl.Expr:
    """The number of digits that a letter of a version stands for; 0 where there is no letter."""
    return pl.col(column).str.slice(at, 1).replace_strict(_WIDTHS, default=0, return_dtype=pl.Int64)


def _thing() -> pl.Expr:
    """What tells one record from another: of which thing it is, and its stamp."""
    return pl.struct("kind", "case", "type", "id", "stamp").alias("thing")
