"""Which facts a replay is about, as a filter of rows. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from cluster import versions
from cluster.batch import Frame
from cluster.errors import Rejected
from cluster.model import Kind

_WIDTHS = {letter: number for number, letter in enumerate(versions.LETTERS, 1)}
_IDENTITY = ("tenant", "case", "kind", "type", "id", "source", "stamp")


@dataclass(frozen=True)
class Chosen:
    """Facts; None: any.

    Args:
        tenant: None has to be meant: every tenant's.
        first, last: positions in the source's order, both included, whatever the epoch; (5,) includes (5, 1).
        since_ms, until_ms: when they were appended to the log, ms since 1970; the latter is not included. Floors and
            priorities, and what the lake took in before it noted times, are of every time.
    """

    tenant: str | None
    source: str | None = None
    case: str | None = None
    type: str | None = None
    id: str | None = None
    first: tuple[int, ...] | None = None
    last: tuple[int, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def __post_init__(self) -> None:
        """Raises Rejected where the parts do not go together."""
        if (self.first or self.last) and self.source is None:
            raise Rejected("positions are in the order of one source: name it (--source)")
        if self.id is not None and self.type is None:
            raise Rejected("an id is unique within its type only: name the type (--type)")

    def as_plain(self) -> dict[str, Any]:
        """Plain values, for JSON; what is not asked for is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def of(self, rows: Frame) -> Frame:
        """The rows that are wanted, in their order. Time is not looked at: rows do not know it."""
        return rows.filter(self._condition())

    def in_time(self, appended_ms: int) -> bool:
        """Whether an entry that was appended then is wanted."""
        after = self.since_ms is None or appended_ms >= self.since_ms
        return after and (self.until_ms is None or appended_ms < self.until_ms)

    def _condition(self) -> pl.Expr:
        every = [pl.col(name) == value for name in ("tenant", "source") if (value := getattr(self, name)) is not None]
        own = [pl.col(name) == value for name in ("case", "type", "id") if (value := getattr(self, name)) is not None]
        position = _position()
        if self.first is not None:
            own.append(position >= _text(self.first))
        if self.last is not None:
            last = _text(self.last)
            own.append((position <= last) | position.str.starts_with(last))
        if own:
            every.append(pl.all_horizontal(own) | (pl.col("kind") >= int(Kind.FLOOR)))
        return pl.all_horizontal(every) if every else pl.lit(True)


def _text(position: tuple[int, ...]) -> str:
    """A position as it stands in a version, behind the epoch: texts sort as positions do."""
    return versions.encode(0, position)[len(versions.floor_of(0)) :]


def _position() -> pl.Expr:
    """The position's text of each row's stamp."""
    digits = pl.col("stamp").str.head(1).replace_strict(_WIDTHS, return_dtype=pl.Int64)
    return pl.col("stamp").str.split(".").list.first().str.slice(1 + digits)


class Once:
    """Lets each record through the first time only: what several readings or replays appended is one record.

    It keeps 16 bytes a record.
    """

    def __init__(self) -> None:
        self._seen = pl.DataFrame(schema={"a": pl.UInt64, "b": pl.UInt64})

    def first(self, rows: Frame) -> Frame:
        """Those that were not among these rows or earlier ones, in their order."""
        what = pl.struct(_IDENTITY)
        marked = rows.with_columns(a=what.hash(1), b=what.hash(2)).unique(("a", "b"), keep="first", maintain_order=True)
        new = marked.join(self._seen, on=("a", "b"), how="anti", maintain_order="left")
        self._seen = self._seen.vstack(new.select("a", "b"))
        return new.drop("a", "b")
