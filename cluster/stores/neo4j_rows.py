"""Rows as Neo4j takes them: maps in a list that is the query's parameter.

Neo4j holds every value of ours as it is (values.py has no mixed lists, and floats come back bit for bit), so the
sidecar has no exact values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from cluster.batch import Frame, frame_of, records_of
from cluster.ids import store_key
from cluster.model import OVERLAY_PREFIX, Kind, Op, Record
from cluster.stores.graph import is_mixed
from cluster.stores.shard_codec import sidecar
from cluster.stores.shard_rows import (
    Group,
    Page,
    cut,
    ends_of,
    group_of,
    in_groups,
    key_of,
    overlay_owner,
    things,
    with_cases,
)

Row = dict[str, Any]
_properties = msgspec.json.Decoder(dict[str, Any]).decode
_sidecar = msgspec.json.Encoder().encode
_BY_COLUMN = (
    (pl.col("kind") <= Kind.RELATIONSHIP)
    & ~pl.col("source").str.starts_with(OVERLAY_PREFIX)
    & ((pl.col("kind") == Kind.ENTITY) | (pl.col("a_type") != ""))
    & (pl.col("claim") == "")
)


def row(record: Record, registers: str | None = None) -> Row:
    """The row that a write template takes for a record.

    Args:
        record: a register, or the merged view of several.
        registers: all of them (`_m`), where they are several.
    """
    tenant, case = record.tenant, record.case
    made = _properties(record.props)
    made |= {"_k": key_of(record), "_id": record.id, "_v": record.stamp, "_s": record.source}
    made["_x"] = sidecar(record, None)
    if record.op == Op.DELETE:
        made["_d"] = True
    if registers is not None:
        made["_m"] = registers
    if record.kind == Kind.RELATIONSHIP:
        a, b = ends_of(record)
        return {"a": a, "b": b, "p": made}
    made["_type"] = record.type
    if record.is_overlay:
        made["_e"] = store_key(tenant, case, record.type, record.id)
        made["_o"] = overlay_owner(tenant, record.source)
    elif record.kind == Kind.CLAIM and record.a_type:
        made["_e"] = store_key(tenant, case, record.a_type, record.a_id)
    return made


def pages(rows: Frame, write_rows: int) -> list[Page]:
    """The rows of a batch in pages of at most `write_rows`, in the order of their groups.

    Entities and relationships of facts are made from columns, all others one by one through `row`.
    """
    columns, mixed = rows.select(_BY_COLUMN).to_series(), is_mixed(rows)
    found = [Page(*page, mixed and is_mixed(page[1])) for page in _paged(rows.filter(columns), write_rows)]
    groups: dict[Group, list[Record]] = defaultdict(list)
    for record in records_of(rows.filter(~columns)):
        groups[group_of(record)].append(record)
    for group, records in groups.items():
        for at in range(0, len(records), write_rows):
            page = records[at : at + write_rows]
            of_page = frame_of(page)
            keys = pl.Series(list(map(key_of, page)), dtype=pl.String)
            found.append(Page(group, of_page, keys, list(map(row, page)), mixed and is_mixed(of_page)))
    return sorted(found, key=lambda page: page.group)


def _paged(rows: Frame, write_rows: int) -> Iterator[tuple[Group, Frame, pl.Series, list[Row]]]:
    if not rows.height:
        return
    for group, of_group in in_groups(with_cases(rows)):
        for page in cut(of_group, write_rows):
            made = _registers(page)
            body = _edges(page, made) if group[0] == Kind.RELATIONSHIP else _nodes(page, made)
            yield group, page.select(Record._fields), page["_key"], body


def _registers(page: Frame) -> list[Row]:
    columns = ("_key", "id", "stamp", "source", "op", "props", "event_time", "partition")
    made: list[Row] = []
    ends = page.select("a_type", "a_id", "b_type", "b_id").iter_rows()
    for (key, id, stamp, source, op, props, time, partition), of in zip(
        page.select(columns).iter_rows(), ends, strict=True
    ):
        own = _properties(props)
        own["_k"], own["_id"], own["_v"], own["_s"] = key, id, stamp, source
        own["_x"] = _sidecar((time, partition, *of, None, None)).decode()
        if op == Op.DELETE:
            own["_d"] = True
        made.append(own)
    return made


def _nodes(page: Frame, made: list[Row]) -> list[Row]:
    for own, type_ in zip(made, page["type"], strict=True):
        own["_type"] = type_
    return made


def _edges(page: Frame, made: list[Row]) -> list[Row]:
    case = page["_case"]
    a, b = case + things(page, "a_type", "a_id"), case + things(page, "b_type", "b_id")
    return [{"a": x, "b": y, "p": own} for x, y, own in zip(a, b, made, strict=True)]
