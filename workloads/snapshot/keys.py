"""Things as integers: columns with few values become codes in the order of their texts, and the case, kind and type of
a thing one number, so that sorting, joining and writing handle numbers and one text instead of many.

prefix: uint64 = rank of the case × 2^32 | kind × 2^29 | code of the type. Ranks and codes are positions in the sorted
distinct values of one frame: they mean nothing outside it. Cases rank by bucket, tenant, case.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cluster.errors import Rejected
from cluster.model import Kind

TYPE_BITS = 29
TYPE_COLUMNS = ("type", "a_type", "b_type")
PLAIN_COLUMNS = ("tenant", "case", "source", "partition")
_DENSE_PAIRS = 1 << 24
_ENTITY = np.uint64(int(Kind.ENTITY) << TYPE_BITS)


def coded(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of records with codes (`pl.Enum`, in the order of the texts) for columns of few values.

    The three type columns share one code.
    """
    types = pl.Enum(pl.concat([rows[name].unique() for name in TYPE_COLUMNS]).unique().sort())
    if len(types.categories) >= 1 << TYPE_BITS:
        raise Rejected(f"snapshot: {len(types.categories)} distinct types; take it in more units")
    casts = [pl.col(name).cast(types) for name in TYPE_COLUMNS]
    casts += [pl.col(name).cast(pl.Enum(rows[name].unique().sort())) for name in PLAIN_COLUMNS]
    return rows.with_columns(casts)


def codes(column: pl.Series) -> NDArray[np.uint64]:
    """The codes of a coded column."""
    return column.to_physical().to_numpy().astype(np.uint64)


def with_keys(rows: pl.DataFrame) -> pl.DataFrame:
    """Coded rows with `_prefix` of the thing, and `_a` and `_b`: prefixes that entities have at its ends."""
    cases = _case_ranks(rows) << np.uint64(32)
    kinds = rows["kind"].to_numpy().astype(np.uint64) << np.uint64(TYPE_BITS)
    entities = cases | _ENTITY
    return rows.with_columns(
        pl.Series("_prefix", cases | kinds | codes(rows["type"])),
        pl.Series("_a", entities | codes(rows["a_type"])),
        pl.Series("_b", entities | codes(rows["b_type"])),
    )


def _case_ranks(rows: pl.DataFrame) -> NDArray[np.uint64]:
    tenants, cases = codes(rows["tenant"]), codes(rows["case"])
    width = int(cases.max()) + 1 if len(cases) else 1
    pairs = (tenants * np.uint64(width) + cases).astype(np.int64)
    seen = pl.DataFrame({"pair": pairs, "bucket": rows["bucket"]}).unique("pair", keep="any").sort("bucket", "pair")
    distinct = seen["pair"].to_numpy()
    if len(distinct) and int(distinct.max()) < _DENSE_PAIRS:
        table = np.zeros(int(distinct.max()) + 1, np.uint64)
        table[distinct] = np.arange(len(distinct), dtype=np.uint64)
        return table[pairs]
    order = np.argsort(distinct)
    return order.astype(np.uint64)[np.searchsorted(distinct[order], pairs)]
