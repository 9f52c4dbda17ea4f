"""Rows as Neo4j takes them: maps in a list that is the query's parameter.

Neo4j holds every value of ours as it is (values.py has no mixed lists, and floats come back bit for bit), so the
sidecar has no exact values.
"""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from cluster.batch import Frame
from cluster.ids import case_key, store_key
from cluster.model import OVERLAY_PREFIX, Kind, Op, Record
from cluster.stores.shard_codec import sidecar
from cluster.stores.shard_rows import Page, ends_of, key_of, keys_in, of_cases, overlay_owner, pages_of

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
    by_column = rows.select(_BY_COLUMN).to_series().to_numpy()
    return pages_of(rows, by_column, _bodies, row, list, write_rows)


def _bodies(rows: Frame, entities: int) -> tuple[list[str], list[Row]]:
    (prefixes,) = of_cases(rows, case_key)
    keys = keys_in(rows, prefixes)
    made = _registers(rows, keys)
    for own, type_ in zip(made[:entities], rows["type"][:entities].to_list(), strict=True):
        own["_type"] = type_
    if entities == rows.height:
        return keys, made
    edges, of = rows[entities:], prefixes[entities:]
    a, b = keys_in(edges, of, "a_type", "a_id"), keys_in(edges, of, "b_type", "b_id")
    pairs = zip(a, b, made[entities:], strict=True)
    return keys, made[:entities] + [{"a": x, "b": y, "p": own} for x, y, own in pairs]


def _registers(rows: Frame, keys: list[str]) -> list[Row]:
    made: list[Row] = []
    columns = (rows[name].to_list() for name in ("id", "stamp", "source", "op", "props"))
    sidecars = (rows[name].to_list() for name in ("event_time", "partition", "a_type", "a_id", "b_type", "b_id"))
    of = zip(*sidecars, strict=True)
    for key, id, stamp, source, op, props, mine in zip(keys, *columns, of, strict=True):
        own = _properties(props)
        own["_k"], own["_id"], own["_v"], own["_s"] = key, id, stamp, source
        own["_x"] = _sidecar((*mine, None, None)).decode()
        if op == Op.DELETE:
            own["_d"] = True
        made.append(own)
    return made
