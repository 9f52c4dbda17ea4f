"""Things as integers: columns with few values become codes in the order of their texts, and the case, kind and type of
a thing one number, so that sorting, joining and writing handle numbers and one text instead of many.

prefix: uint64 = rank of the case × 2^32 | kind × 2^29 | code of the type. Ranks and codes are positions in the sorted
distinct values of one frame: they mean nothing outside it. Cases rank by bucket, tenant, case.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cluster.errors import Rejected
from cluster.model import Kind
from workloads.kernels.codes import NO_VALUE, used_codes, values_of

TYPE_BITS = 29
TYPE_COLUMNS = ("type", "a_type", "b_type")
PLAIN_COLUMNS = ("tenant", "case", "source", "partition")
_DENSE_PAIRS = 1 << 24
_ENTITY = pl.lit(int(Kind.ENTITY) << TYPE_BITS, pl.UInt64)


def categories(rows: pl.DataFrame | None = None) -> dict[str, pl.DataType]:
    """What columns of few values are read as: the categories that rows have, or new ones. Type columns share one."""
    known = rows.schema if rows is not None else {}
    types = known.get("type", pl.String())
    shared = types if isinstance(types, pl.Categorical) else pl.Categorical(pl.Categories.random())
    found: dict[str, pl.DataType] = dict.fromkeys(TYPE_COLUMNS, shared)
    for name in PLAIN_COLUMNS:
        own = known.get(name, pl.String())
        found[name] = own if isinstance(own, pl.Categorical) else pl.Categorical(pl.Categories.random())
    return found


def coded(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of records with codes (`pl.Enum`, in the order of the texts) for columns of few values, which are
    `categories`.

    The three type columns share one code.
    """
    groups = [TYPE_COLUMNS, *((name,) for name in PLAIN_COLUMNS)]
    with ThreadPoolExecutor(len(groups)) as threads:
        found = list(threads.map(lambda names: _in_order([rows[name] for name in names]), groups))
    return rows.with_columns(column for columns in found for column in columns)


def _in_order(columns: list[pl.Series]) -> list[pl.Series]:
    """Columns of one category, coded in the order of the texts that occur."""
    used = pl.Series(np.unique(np.concatenate([_used(column.to_physical()) for column in columns])))
    texts = used.cat.to(columns[0].dtype).cast(pl.String)
    order = texts.arg_sort()
    if len(order) >= 1 << TYPE_BITS:
        raise Rejected(f"snapshot: {len(order)} distinct values of {columns[0].name}; take it in more units")
    rank = np.zeros(len(used) and int(used.to_numpy().max()) + 1, np.uint32)
    rank[used[order].to_numpy()] = np.arange(len(order), dtype=np.uint32)
    enum = pl.Enum(texts[order])
    codes = pl.Series(rank).cast(pl.Series(dtype=enum).to_physical().dtype)
    return [codes.gather(column.to_physical()).cat.to(enum).alias(column.name) for column in columns]


def _used(codes: pl.Series) -> NDArray[np.uint32]:
    physical = codes.to_numpy()
    return used_codes(physical, int(physical.max(initial=0)) + 1).astype(np.uint32)


def codes(column: pl.Series) -> NDArray[np.uint64]:
    """The codes of a coded column."""
    return column.to_physical().to_numpy().astype(np.uint64)


def with_keys(rows: pl.DataFrame) -> pl.DataFrame:
    """Coded rows with `_prefix` of the thing, and `_a` and `_b`: prefixes that entities have at its ends."""
    cases = _case_ranks(rows).alias("_case")
    kind = pl.col("kind").cast(pl.UInt64) * (1 << TYPE_BITS)
    keys = {"_prefix": kind + _code("type"), "_a": _ENTITY + _code("a_type"), "_b": _ENTITY + _code("b_type")}
    own = [(pl.col("_case") + key).alias(name) for name, key in keys.items()]
    return rows.with_columns(cases).with_columns(own).drop("_case")


def _code(name: str) -> pl.Expr:
    return pl.col(name).to_physical().cast(pl.UInt64)


def _case_ranks(rows: pl.DataFrame) -> pl.Series:
    """Rank of each row's case, × 2^32."""
    width = len(rows.schema["case"].categories)  # type: ignore[attr-defined]
    tenants = len(rows.schema["tenant"].categories)  # type: ignore[attr-defined]
    pair = (_code("tenant") * width + _code("case")).cast(pl.Int64)
    pairs = rows.select(pair).to_series().to_numpy()
    if tenants * width <= _DENSE_PAIRS:
        return _ranks(pairs, rows["bucket"].to_numpy(), tenants * width)
    distinct, places = np.unique(pairs, return_inverse=True)
    return _ranks(places, rows["bucket"].to_numpy(), len(distinct))


def _ranks(pairs: NDArray[np.int64], buckets: NDArray[np.uint16], count: int) -> pl.Series:
    """Rank × 2^32 of each row's pair by bucket and pair; rows of a pair have one bucket. Pairs within 0..count-1."""
    bucket_of = values_of(pairs, buckets, count)
    distinct = np.flatnonzero(bucket_of != NO_VALUE)
    by_bucket = distinct[np.argsort(bucket_of[distinct], kind="stable")]
    rank = np.zeros(count, np.uint64)
    rank[by_bucket] = np.arange(len(distinct), dtype=np.uint64) << np.uint64(32)
    return pl.Series(rank).gather(pl.Series(pairs))
