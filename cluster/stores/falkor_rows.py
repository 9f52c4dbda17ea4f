"""The rows of a whole batch at once: the texts of `falkor_text.row`, made column by column.

Most records are plain: one fact of an entity or relationship whose texts need no escape and whose numbers the parser
takes. Their texts are joined from columns; all others go one by one through `row`, which stays the definition.
"""

from __future__ import annotations

import polars as pl

from cluster.batch import Frame
from cluster.ids import case_key, case_tag
from cluster.model import OVERLAY_PREFIX, Kind, Op
from cluster.stores.falkor_text import PROPERTY_KEY, row
from cluster.stores.shard_rows import Page, keys_in, of_cases, pages_of

_TO_ESCAPE = r'["\\\x00-\x1f]'
# In canonical JSON: an escape, a list of numbers, a negative zero, a float that may be subnormal or ends in zeros.
_TO_REWRITE = r"\\|\[-?[0-9]|-0\.0|[0-9]e-3[0-9][0-9]|:-?[0-9]{16,}\.0[,}]"
# A float in its shortest text changes in an answer of 15 digits exactly if it has 16 or more, counted from the first
# that is not 0. So many before the point, so many at least behind it:
_SPLITS = "|".join([*(rf"[0-9]{{{n}}}\.[0-9]{{{15 - n},}}" for n in range(14)), r"[0-9]{14,}\.[0-9]*[1-9]"])
_LOSSY = PROPERTY_KEY.replace("(", "(?:") + rf"-?(?:0\.0*[1-9][0-9]{{15,}}|[1-9](?:{_SPLITS}))(?:e-?[0-9]+)?"
_TEXTS = ("id", "source", "partition", "event_time", "a_id", "b_id")
_PLAIN = (
    (pl.col("kind") <= Kind.RELATIONSHIP)
    & ~pl.col("source").str.starts_with(OVERLAY_PREFIX)
    & ((pl.col("kind") == Kind.ENTITY) | (pl.col("a_type") != ""))
    & (pl.col("claim") == "")
    & ~pl.concat_str(_TEXTS).str.contains(_TO_ESCAPE)
    & ~pl.col("props").str.contains(_TO_REWRITE)
)


def pages(rows: Frame, write_rows: int) -> list[Page]:
    """The rows of a batch in pages of at most `write_rows`, in the order of their groups."""
    plain = rows.select(_PLAIN).to_series().to_numpy()
    return pages_of(rows, plain, _bodies, row, ",".join, write_rows)


def _bodies(rows: Frame, entities: int) -> tuple[list[str], list[str]]:
    prefixes, tags = of_cases(rows, case_key, _tag)
    keys = keys_in(rows, prefixes)
    marked = rows.hstack([_texts("_key", keys), _texts("_tag", tags)])
    made: list[str] = marked[:entities].select(_NODES).to_series().to_list() if entities else []
    if entities < rows.height:
        edges, of = marked[entities:], prefixes[entities:]
        ends = [_texts(f"_{end}", keys_in(edges, of, f"{end}_type", f"{end}_id")) for end in "ab"]
        made += edges.hstack(ends).select(_EDGES).to_series().to_list()
    return keys, made


def _tag(tenant: str, case: str) -> str:
    return str(case_tag(tenant, case))


def _texts(name: str, texts: list[str]) -> pl.Series:
    return pl.Series(name, texts, dtype=pl.String)


def _register(*marks: pl.Expr | str) -> pl.Expr:
    props = pl.col("props")
    entries = props.str.slice(1, props.str.len_chars() - 2).str.replace_all(PROPERTY_KEY, "`$1`:")
    return pl.concat_str(
        pl.lit('{`_k`:"'), "_key", pl.lit('",`_id`:"'), "id", pl.lit('",`_v`:"'), "stamp", pl.lit('",`_s`:"'), "source",
        pl.lit("\",`_x`:'"), _sidecar(), pl.lit("'"),
        pl.when(pl.col("op") == Op.DELETE).then(pl.lit(",`_d`:true")).otherwise(pl.lit("")), *marks,
        pl.when(props == "{}").then(pl.lit("")).otherwise(pl.lit(",")), entries, pl.lit("}"),
    )  # fmt: skip


def _sidecar() -> pl.Expr:
    fields: list[pl.Expr | str] = [pl.lit('["'), "event_time"]
    for name in ("partition", "a_type", "a_id", "b_type", "b_id"):
        fields += [pl.lit('","'), name]
    text = pl.concat_str(*fields, pl.lit('",null,'), _exact(), pl.lit("]"))
    return text.str.replace_all("'", "\\'", literal=True)


def _exact() -> pl.Expr:
    lossy = pl.col("props").str.extract_all(_LOSSY)
    some = pl.concat_str(pl.lit("{"), lossy.list.join(","), pl.lit("}"))
    return pl.when(lossy.list.len() > 0).then(some).otherwise(pl.lit("null"))


_NODES = _register(pl.lit(",`_c`:"), "_tag", pl.lit(',`_type`:"'), "type", pl.lit('"'))
_EDGES = pl.concat_str(
    pl.lit('{a:"'), "_a", pl.lit('",b:"'), "_b", pl.lit('",c:'), "_tag", pl.lit(",p:"), _register(), pl.lit("}")
)
