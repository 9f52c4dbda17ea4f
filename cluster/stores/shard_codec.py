"""Registers to and from what a shard stores: sidecars and packed registers out, whole property maps in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.dialect import SEVERAL
from cluster.errors import Corrupt
from cluster.model import Op, Record
from cluster.stores.graph import StoredThing
from cluster.values import canonical_json

_PACKED = ("source", "stamp", "op", "event_time", "partition", "a_type", "a_id", "b_type", "b_id", "props", "claim")


_encode = msgspec.json.Encoder().encode


def sidecar(record: Record, exact: Mapping[str, Any] | None) -> str:
    """JSON of what the database cannot hold as it is: see dialect.py."""
    claim = msgspec.Raw(record.claim.encode()) if record.claim else None
    ends = (record.a_type, record.a_id, record.b_type, record.b_id)
    return _encode((record.event_time, record.partition, *ends, claim, exact)).decode()


def sidecar_of(stored: Mapping[str, Any]) -> list[Any]:
    """The decoded sidecar: [event_time, partition, a_type, a_id, b_type, b_id, claim, exact].

    Raises:
        Corrupt: it is missing or no such list.
    """
    try:
        fields = msgspec.json.decode(stored["_x"])
    except (KeyError, msgspec.DecodeError) as error:
        raise Corrupt(f"thing {stored.get('_k')!r} has no readable sidecar") from error
    if not isinstance(fields, list) or len(fields) != 8:
        raise Corrupt(f"thing {stored.get('_k')!r} has a sidecar of another form")
    return fields


def _refloat(value: Any) -> Any:
    return [float(v) for v in value] if isinstance(value, list) else float(value)


def exact_properties(stored: Mapping[str, Any], exact: Mapping[str, Any] | None) -> dict[str, Any]:
    """A thing's own properties out of its stored map, floats as they were sent."""
    props = {k: v for k, v in stored.items() if not k.startswith("_")}
    for name, value in (exact or {}).items():
        props[name] = _refloat(value)
    return props


def _single(head: tuple[str, str, int, int, str, str], stored: Mapping[str, Any]) -> Record:
    tenant, case, bucket, kind, type, id = head
    event_time, partition, a_type, a_id, b_type, b_id, claim, exact = sidecar_of(stored)
    return Record(
        tenant, case, bucket, kind, Op.DELETE if stored.get("_d") else Op.UPSERT, type, id, a_type, a_id, b_type, b_id,
        stored["_s"], stored["_v"], partition, event_time, canonical_json(exact_properties(stored, exact)),
        canonical_json(claim) if claim is not None else "",
    )  # fmt: skip


def shown_record(tenant: str, case: str, bucket: int, kind: int, type: str, stored: Mapping[str, Any]) -> Record:
    """What a stored thing shows, as a record: one register's content, or the merged view of several."""
    return _single((tenant, case, bucket, kind, type, stored["_id"]), stored)


def pack(registers: Mapping[str, Record]) -> str:
    """The text of `_m`: every register of a thing."""
    rows = [[getattr(r, name) for name in _PACKED] for _, r in sorted(registers.items())]
    return msgspec.json.encode(rows).decode()


def _unpack(head: tuple[str, str, int, int, str, str], text: str) -> dict[str, Record]:
    tenant, case, bucket, kind, type, id = head
    found: dict[str, Record] = {}
    for fields in msgspec.json.decode(text):
        named = dict(zip(_PACKED, fields, strict=True))
        record = Record(tenant=tenant, case=case, bucket=bucket, kind=kind, type=type, id=id, **named)
        found[record.source] = record
    return found


def stored_thing(tenant: str, case: str, bucket: int, kind: int, type: str, stored: Mapping[str, Any]) -> StoredThing:
    """All registers of a stored node or relationship."""
    id = stored["_id"]
    head = (tenant, case, bucket, kind, type, id)
    if stored["_s"] == SEVERAL:
        return StoredThing(kind, tenant, case, type, id, _unpack(head, stored["_m"]))
    record = _single(head, stored)
    return StoredThing(kind, tenant, case, type, id, {record.source: record})


def whole(thing: StoredThing, merged: Record | None) -> tuple[Record, str | None]:
    """What replaces a thing: (record, text of `_m`). One register is itself, without `_m`; several are the merged view
    with every register packed, and their source is `SEVERAL`.

    Args:
        merged: the merged view's fields; None where no register of a fact source lives.
    """
    registers = list(thing.registers.values())
    if len(registers) == 1:
        return registers[0], None
    newest = max(registers, key=lambda r: r.stamp)
    shown = merged if merged is not None else newest._replace(op=Op.DELETE, props="{}", claim="", a_type="", a_id="")
    return shown._replace(stamp=newest.stamp, source=SEVERAL), pack(thing.registers)
