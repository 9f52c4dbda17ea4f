"""The rows of a whole batch at once: the texts of `falkor_text.row`, made column by column.

Most records are plain: one fact of an entity or relationship whose texts need no escape and whose numbers the parser
takes. Their texts are joined from columns; all others go one by one through `row`, which stays the definition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import polars as pl

from cluster.batch import Frame, frame_of, records_of
from cluster.model import OVERLAY_PREFIX, Kind, Op, Record
from cluster.stores.falkor_text import PROPERTY_KEY, row
from cluster.stores.graph import is_mixed
from cluster.stores.shard_rows import Group, Page, cut, group_of, in_groups, key_of, things, with_cases

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
    plain, mixed = rows.select(_PLAIN).to_series(), is_mixed(rows)
    found = [Page(*page, mixed and is_mixed(page[1])) for page in _paged(rows.filter(plain), write_rows)]
    if not plain.all():
        groups: dict[Group, list[Record]] = defaultdict(list)
        for record in records_of(rows.filter(~plain)):
            groups[group_of(record)].append(record)
        for group, records in groups.items():
            for at in range(0, len(records), write_rows):
                page = records[at : at + write_rows]
                of_page = frame_of(page)
                keys = pl.Series(list(map(key_of, page)), dtype=pl.String)
                found.append(Page(group, of_page, keys, ",".join(map(row, page)), mixed and is_mixed(of_page)))
    return sorted(found, key=lambda page: page.group)


def _paged(plain: Frame, write_rows: int) -> Iterator[tuple[Group, Frame, pl.Series, str]]:
    entities, relationships = plain.filter(pl.col("kind") == Kind.ENTITY), plain.filter(pl.col("kind") > Kind.ENTITY)
    for rows, text in ((entities, _nodes), (relationships, _edges)):
        if rows.height:
            for group, of_group in in_groups(with_cases(rows).with_columns(text(rows).alias("_text"))):
                for page in cut(of_group, write_rows):
                    yield group, page.select(Record._fields), page["_key"], ",".join(page["_text"].to_list())


def _nodes(_: Frame) -> pl.Expr:
    return _register(pl.lit(",`_c`:"), "_tag", pl.lit(',`_type`:"'), "type", pl.lit('"'))


def _edges(rows: Frame) -> pl.Expr:
    a, b = things(rows, "a_type", "a_id"), things(rows, "b_type", "b_id")
    return pl.concat_str(
        pl.lit('{a:"'), "_case", a, pl.lit('",b:"'), "_case", b, pl.lit('",c:'), "_tag", pl.lit(",p:"), _register(),
        pl.lit("}"),
    )  # fmt: skip


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
