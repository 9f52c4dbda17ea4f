"""Property maps as a shard stores them, to what an answer shows. Layout: cluster/dialect.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.dialect import SEVERAL
from cluster.errors import Corrupt
from cluster.ids import store_key
from cluster.model import OVERLAY_PREFIX, Op
from cluster.query.answers import ClaimView, SourceView
from cluster.versions import decode as decode_version

Stored = Mapping[str, Any]
_SIDECAR_FIELDS = 8
_read_sidecar = msgspec.json.Decoder().decode
_REGISTER_FIELDS = 11


def is_of(stored: Stored, tenant: str, case: str) -> bool:
    """Whether a node really is of this tenant and case: its key is computed anew from what it says it is."""
    return bool(stored.get("_k") == store_key(tenant, case, stored["_type"], stored["_id"]))


def sidecar(stored: Stored) -> list[Any]:
    """[event_time, partition, a_type, a_id, b_type, b_id, claim, exact] of a stored thing.

    Raises:
        Corrupt: there is none that can be read.
    """
    try:
        fields = _read_sidecar(stored["_x"])
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        raise Corrupt(f"thing {stored.get('_k')!r} has no readable sidecar; rebuild the shard") from error
    if not isinstance(fields, list) or len(fields) != _SIDECAR_FIELDS:
        raise Corrupt(f"thing {stored.get('_k')!r} has a sidecar of another form; rebuild the shard")
    return fields


def properties(stored: Stored, side: list[Any] | None = None) -> dict[str, Any]:
    """The source's properties, sorted by name, exact floats in place of what the database rounds."""
    exact = (side if side is not None else sidecar(stored))[7] or {}
    props = {name: stored[name] for name in sorted([name for name in stored if name[:1] != "_"])}
    for name, value in exact.items():
        props[name] = [float(v) for v in value] if isinstance(value, list) else float(value)
    return props


def _source(
    source: str, stamp: str, live: bool, time: str, partition: str, props: dict[str, Any], claim: list[Any] | None
) -> SourceView:
    epoch, position = decode_version(stamp.partition(".")[0])
    said = tuple(claim) if claim else None
    return SourceView(source, epoch, position, live, props, time or None, partition or None, said)


def registers(stored: Stored, side: list[Any]) -> list[SourceView]:
    """Every source's register of a stored thing, by source name."""
    if stored["_s"] != SEVERAL:
        time, partition = side[0], side[1]
        live = not stored.get("_d")
        return [_source(stored["_s"], stored["_v"], live, time, partition, properties(stored, side), side[6])]
    try:
        rows = msgspec.json.decode(stored["_m"])
        found = [_register(row) for row in rows if len(row) == _REGISTER_FIELDS]
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise Corrupt(f"thing {stored.get('_k')!r} has registers that cannot be read; rebuild the shard") from error
    return sorted(found, key=lambda view: view.source)


def _register(row: list[Any]) -> SourceView:
    source, stamp, op, time, partition, _, _, _, _, props, claim = row
    said = msgspec.json.decode(claim) if claim else None
    return _source(source, stamp, op == Op.UPSERT, time, partition, msgspec.json.decode(props), said)


def claim_view(stored: Stored) -> ClaimView:
    """A claim as its subject shows it."""
    side = sidecar(stored)
    if not side[6]:
        raise Corrupt(f"claim {stored.get('_k')!r} says nothing; rebuild the shard")
    predicate, value, confidence = side[6]
    return ClaimView(
        stored["_type"], stored["_id"], predicate, value, registers(stored, side), confidence, side[0] or None,
        properties(stored, side),
    )  # fmt: skip


def overlay_view(stored: Stored) -> tuple[str, dict[str, Any]]:
    """(name of the overlay, its values); `asOf` is when they are from, as the overlay or else its event says."""
    side = sidecar(stored)
    values = properties(stored, side)
    _, position = decode_version(stored["_v"].partition(".")[0])
    as_of = values.pop("asOf", None) or side[0] or None
    if isinstance(as_of, str) and as_of.startswith("{"):
        as_of = msgspec.json.decode(as_of)
    values.setdefault("run", position[0])
    return stored["_s"].removeprefix(OVERLAY_PREFIX), {**values, "asOf": as_of}
