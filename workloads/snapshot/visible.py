"""What registers show: entities, relationships whose ends are visible, claims; several sources merged.

A thing that one fact source speaks of, nearly all of them, is shown as its register stands, by columns. A thing of
several sources goes through `cluster.fold.merge`, one at a time. Rows are chosen and ordered by index; the wide
columns are gathered once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cluster import batch
from cluster.fold import Priorities, merge, thing_of
from cluster.model import OVERLAY_PREFIX, Kind, Op, Record
from cluster.values import canonical_json
from workloads.kernels.lookup import Hashes, lookup_table, rows_of
from workloads.kernels.order import order_by
from workloads.snapshot.fold import to_batch
from workloads.snapshot.keys import codes

Ints = NDArray[np.int64]
_SHOWN = ["tenant", "bucket", "case", "type", "id", "sources", "event_time", "props"]
_HASH_SEED = secrets.randbits(63)
"""Another one in each process, so that nobody can name things whose hashes crowd. Nothing kept depends on it."""
_ODD = 0x9E3779B97F4A7C15


class Visible(NamedTuple):
    """Visible things of a range of buckets.

    `entities` are ordered by tenant, bucket, case, type, id. `edges` have `src` and `dst`, row numbers in
    `entities` (int64), and are ordered by (src, dst), parallel ones by type and id. `claims` are ordered as entities
    are and have `subject`, such a row number too, or -1 where the subject is not visible. `sources` is a canonical
    JSON array.
    """

    entities: pl.DataFrame
    edges: pl.DataFrame
    claims: pl.DataFrame


def visible_of(registers: pl.DataFrame, priorities: Priorities) -> Visible:
    """What registers show.

    Args:
        registers: of `fold_registers`, in its order; whole cases.
    """
    shown = merged(registers, priorities)
    kinds = shown["kind"].to_numpy()
    entities = shown.select(*_SHOWN, "_prefix")[_by_tenant(shown, kinds == int(Kind.ENTITY))]
    find = _Finder(entities["_prefix"], entities["id"])
    edges = _edges(shown, np.flatnonzero(kinds == int(Kind.RELATIONSHIP)), find, len(entities))
    at = _by_tenant(shown, kinds == int(Kind.CLAIM))
    claims = shown.select(*_SHOWN, "a_type", "a_id", "claim")[at]
    claims = claims.with_columns(pl.Series("subject", find(shown["_a"][at], shown["a_id"][at])))
    return Visible(entities.select(_SHOWN), edges, claims)


def _by_tenant(shown: pl.DataFrame, wanted: NDArray[np.bool_]) -> Ints:
    """Rows that are wanted, ordered by tenant and else as they come."""
    at = np.flatnonzero(wanted)
    tenants = shown["tenant"][at]
    if tenants.n_unique() < 2:
        return at
    return at[np.argsort(codes(tenants).astype(np.uint32), kind="stable")]


def _edges(shown: pl.DataFrame, at: Ints, find: _Finder, count: int) -> pl.DataFrame:
    src, dst = (find(shown[f"_{end}"][at], shown[f"{end}_id"][at]) for end in "ab")
    whole = (src >= 0) & (dst >= 0)
    src, dst, at = src[whole], dst[whole], at[whole]
    order = order_by(src, dst, count)
    edges = shown.select(_SHOWN)[at[order]]
    return edges.with_columns(pl.Series("src", src[order]), pl.Series("dst", dst[order]))


class _Finder:
    """Finds entities by prefix and id. Joins on a hash of both, then compares: exact whatever the hash does."""

    def __init__(self, prefix: pl.Series, id: pl.Series) -> None:
        self._prefix, self._id = prefix, id
        self._hash = hash_of(prefix, id)
        self._table = lookup_table(self._hash)

    def __call__(self, prefix: pl.Series, id: pl.Series) -> Ints:
        """Row of each entity, -1 where there is none: int64."""
        if self._table is None:
            return self._exact(prefix, id)
        found = rows_of(self._table, self._hash, hash_of(prefix, id))
        asked = np.flatnonzero(found >= 0)
        if len(asked) == len(found):
            at = pl.Series(found)
        else:
            at, prefix, id = pl.Series(found[asked]), prefix.gather(asked), id.gather(asked)
        same = ((self._id.gather(at) == id) & (self._prefix.gather(at) == prefix)).to_numpy()
        found[asked[~same]] = -1
        return found

    def _exact(self, prefix: pl.Series, id: pl.Series) -> Ints:
        build = pl.DataFrame({"prefix": self._prefix, "id": self._id}).with_row_index("at")
        probe = pl.DataFrame({"prefix": prefix, "id": id})
        at = probe.join(build, on=["prefix", "id"], how="left", maintain_order="left")["at"]
        return at.cast(pl.Int64).fill_null(-1).to_numpy()


def hash_of(prefix: pl.Series, id: pl.Series) -> Hashes:
    """A hash of each row's prefix and id."""
    mixed = prefix.to_numpy() * np.uint64(_ODD)
    found: Hashes = id.hash(_HASH_SEED).to_numpy() ^ mixed
    return found


def merged(registers: pl.DataFrame, priorities: Priorities) -> pl.DataFrame:
    """One row a thing with a living fact register, in the registers' order, with `sources`."""
    facts = ~np.array([name.startswith(OVERLAY_PREFIX) for name in sources_of(registers)], np.bool_)
    sources = codes(registers["source"])
    living = (registers["op"] == int(Op.UPSERT)) & pl.Series(facts[sources] if len(sources) else sources == 0)
    live = registers if living.all() else registers.filter(living)
    differs = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("_prefix", "id")]
    begins = live.select(pl.any_horizontal(differs)).to_series()
    if begins.all():
        return live.with_columns(_one_source(live))
    thing = begins.cum_sum().cast(pl.UInt32).alias("_thing")
    several = thing.is_duplicated()
    single = live.with_columns(_one_source(live), thing).filter(~several)
    together = _together(live.with_columns(thing).filter(several), priorities)
    return pl.concat([single, together.select(single.columns)]).sort("_thing").drop("_thing")


def sources_of(registers: pl.DataFrame) -> list[str]:
    """Names of sources by their codes."""
    return registers.schema["source"].categories.to_list()  # type: ignore[attr-defined,no-any-return]


def _one_source(live: pl.DataFrame) -> pl.Series:
    texts = pl.Series([canonical_json([name]) for name in sources_of(live)], dtype=pl.String)
    return texts.gather(live["source"].to_physical()).alias("sources")


def _together(rows: pl.DataFrame, priorities: Priorities) -> pl.DataFrame:
    records = batch.from_arrow(to_batch(rows))
    shown = [_shown(list(group), priorities) for _, group in groupby(records, key=thing_of)]
    first = rows.filter(rows["_thing"].is_first_distinct())
    names = ("a_type", "a_id", "b_type", "b_id", "event_time", "props", "claim", "sources")
    columns = zip(*shown, strict=True)
    first = first.with_columns(
        pl.Series(name, values, dtype=pl.String).cast(rows.schema.get(name, pl.String()))
        for name, values in zip(names, columns, strict=True)
    )
    return _with_end_keys(first, rows)


def _shown(registers: list[Record], priorities: Priorities) -> Sequence[str]:
    one = merge(registers, priorities)
    if one is None:
        raise AssertionError("only living fact registers are merged")
    return (*one, canonical_json(sorted(register.source for register in registers)))


def _with_end_keys(first: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The end keys of the register whose ends were taken: sources may disagree about a relationship's ends."""
    on = ["_thing", "a_type", "a_id", "b_type", "b_id"]
    known = rows.select(*on, "_a", "_b").unique(on)
    return first.drop("_a", "_b").join(known, on=on, how="left", maintain_order="left")
