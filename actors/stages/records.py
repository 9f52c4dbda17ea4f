"""Place: an event takes its place in its source's order and becomes a record. The one place where stamps are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from actors.stages.bad import Bad, Slot, bad_of
from actors.stages.origin import Origin
from cluster import versions
from cluster.config import RecordLimits
from cluster.errors import BadRecord
from cluster.ids import bucket_of
from cluster.model import KINDS, Event, Op, Record, stamp_of

_json = msgspec.json.Encoder(order="sorted").encode
_NUMBERS = {name: (int(kind), str(int(kind))) for name, kind in KINDS.items()}
_NO_ENDS = ("", "", "", "")
_DELETE = int(Op.DELETE)
_new = tuple.__new__

Positions = Literal["own", "assigned"]


def record_of(event: Event, tenant: str, source: str, epoch: int, position: Sequence[int]) -> Record:
    """The record of a checked, normalised event at (epoch, position). The same event there gives the same record.

    The stamp covers kind, op, ends, partition, event_time, props and claim. A delete keeps none of ends, props, claim.

    Raises:
        BadRecord: epoch or position is out of range.
    """
    kind, kind_text = _NUMBERS[event.kind]
    version = versions.encode(epoch, position)
    partition = "" if event.partition is None else str(event.partition)
    time, case, type = event.event_time or "", event.case, event.type
    if event.op == "delete":
        stamp = stamp_of(version, kind_text, "1", *_NO_ENDS, partition, time, "{}", "")
        row = (tenant, case, bucket_of(tenant, case), kind, _DELETE, type, event.id, *_NO_ENDS, source, stamp)
        return _new(Record, (*row, partition, time, "{}", ""))
    props = _json(event.props).decode() if event.props else "{}"
    claim, a_type, a_id, b_type, b_id = "", "", "", "", ""
    if event.from_ is not None and event.to is not None:
        a_type, a_id, b_type, b_id = event.from_.type, event.from_.id, event.to.type, event.to.id
    elif event.subject is not None:
        a_type, a_id = event.subject.type, event.subject.id
        claim = _json([event.predicate, event.value, event.confidence]).decode()
    stamp = stamp_of(version, kind_text, "0", a_type, a_id, b_type, b_id, partition, time, props, claim)
    return _new(
        Record,
        (
            tenant, case, bucket_of(tenant, case), kind, 0, type, event.id, a_type, a_id, b_type, b_id, source, stamp,
            partition, time, props, claim,
        ),
    )  # fmt: skip


def place(
    slots: Sequence[Slot[Event]], origin: Origin, epoch: int, positions: Sequence[Sequence[int]], limits: RecordLimits
) -> list[Slot[Record]]:
    """Records of validated events: at their own positions, or at those given.

    Args:
        epoch, positions: of the slots whose events bring none; positions[i] is of slots[i].
    """
    most = limits.record_bytes
    records: list[Slot[Record]] = []
    for slot, given in zip(slots, positions, strict=True):
        if type(slot) is not Event:
            records.append(slot)  # type: ignore[arg-type]
            continue
        own = slot.position
        try:
            if own is None:
                record = record_of(slot, slot.tenant, slot.source, epoch, given)  # type: ignore[arg-type]
            else:
                at = (own,) if type(own) is int else own
                since = origin.epoch if slot.epoch is None else slot.epoch
                record = record_of(slot, slot.tenant, slot.source, since, at)  # type: ignore[arg-type]
        except BadRecord as error:
            records.append(bad_of(error, slot.type))
            continue
        if len(record.props) + len(record.claim) > most:
            records.append(Bad("too_large", f"record: over {most:,} characters in canonical form", slot.type))
            continue
        records.append(record)
    return records


def mode_of(event: Event) -> Positions:
    """Whether the event brings its position."""
    return "assigned" if event.position is None else "own"


def restamped(record: Record, version: str) -> Record:
    """The same content at another version."""
    ends = (record.a_type, record.a_id, record.b_type, record.b_id)
    content = (str(int(record.kind)), str(int(record.op)), *ends, record.partition, record.event_time)
    return record._replace(stamp=stamp_of(version, *content, record.props, record.claim))
