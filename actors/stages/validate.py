"""Validate: every rule of the event format that one record can break by itself, and who may say what.

The rules are in docs/data-model.md. What repeats from record to record (tenants, cases, types, names) is checked once
and remembered, within bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from actors.stages.bad import Slot, bad_of
from actors.stages.origin import Origin
from actors.stages.times import utc_text
from cluster.config import RecordLimits
from cluster.dialect import RESERVED_PROPERTIES
from cluster.errors import BadRecord
from cluster.model import Event, Ref, from_outside
from cluster.versions import MAX_INTEGER, MAX_POSITION_PARTS

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PROPERTY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_GOOD_NAMES_MOST = 65_536
_good_names: set[str] = set()
PREDICATE_CHARS = 256
PARTITION_CHARS = 256
POSITION_MAX = MAX_INTEGER - 1
"""The greatest first integer of a position; the one above it is the platform's (the undo of a load)."""


def validate(slots: Sequence[Slot[Event]], origin: Origin, limits: RecordLimits) -> list[Slot[Event]]:
    """Events that keep the rules, with tenant and source filled in and `event_time` in UTC."""
    checked: list[Slot[Event]] = []
    good: set[Head] = set()
    for slot in slots:
        if type(slot) is Event:
            try:
                if (slot.tenant, slot.source, slot.case, slot.type) not in good:
                    good.add(_checked_head(slot, origin, limits))
                _check(slot, limits)
            except BadRecord as error:
                checked.append(bad_of(error, slot.type[:64] if slot.type.isprintable() else ""))
                continue
        checked.append(slot)
    return checked


Head = tuple[str | None, str | None, str, str]
"""(tenant, source, case, type): what most records of a batch have in common."""


def _checked_head(event: Event, origin: Origin, limits: RecordLimits) -> Head:
    _check_owner(event, origin, limits)
    check_short("case", event.case, limits.case_chars)
    check_type("type", event.type)
    return event.tenant, event.source, event.case, event.type


def _check(event: Event, limits: RecordLimits) -> None:
    id = event.id
    if not (0 < len(id) <= limits.id_chars and id.isascii() and "\x00" not in id):
        check_id("id", id, limits.id_chars)
    if event.kind == "entity":
        if event.from_ is not None or event.to is not None:
            raise foreign("from, to", "relationships")
    elif event.kind == "relationship":
        check_end("from", event.from_, event.op, limits)
        check_end("to", event.to, event.op, limits)
    if event.kind == "claim":
        _check_claim(event, limits)
    elif (
        event.subject is not None
        or event.predicate is not None
        or event.value is not None
        or event.confidence is not None
    ):
        raise foreign("subject, predicate, value, confidence", "claims")
    if event.props:
        check_names(event.props, limits.properties)
    if event.event_time is not None:
        event.event_time = utc_text(event.event_time)
    position = event.position
    if type(position) is not int or not 0 <= position <= POSITION_MAX or event.epoch is not None:
        check_position(event)
    if event.partition is not None:
        check_partition(event)


def _check_owner(event: Event, origin: Origin, limits: RecordLimits) -> None:
    tenant, source = event.tenant, event.source
    if tenant is None:
        if (tenant := origin.tenant) is None:
            raise BadRecord("schema", "tenant: missing, and the origin has several")
        event.tenant = tenant
    if tenant not in origin.tenants:
        raise BadRecord("policy", f"tenant {tenant[:80]!r}: not the one that these records may be of")
    if source is None:
        if (source := origin.default_source) is None:
            raise BadRecord("schema", "source: missing; name the one that says so")
        event.source = source
    if source not in origin.sources:
        raise BadRecord("policy", f"source {source[:80]!r}: not among those that may be written here")
    if from_outside(source) is origin.ours:
        raise BadRecord("policy", f"source {source[:80]!r}: names under overlay/ and system/ are the platform's")
    check_short("tenant", tenant, limits.tenant_chars)


@lru_cache(maxsize=16_384)
def check_short(field: str, text: str, chars: int) -> None:
    """Nothing for a short text, such as names are. Raises BadRecord; remembers what was good."""
    check_id(field, text, chars)


@lru_cache(maxsize=16_384)
def check_type(field: str, text: str) -> None:
    """Nothing for the name of a type. Raises BadRecord."""
    if _TYPE.fullmatch(text) is None:
        raise BadRecord("schema", f"{field} {text[:80]!r}: a letter, then up to 63 letters, digits, '_' and '-'")


def check_id(field: str, text: str, chars: int) -> None:
    """Nothing for a text of 1 to so many characters. Raises BadRecord."""
    if not 1 <= len(text) <= chars:
        raise BadRecord("schema", f"{field}: {len(text):,} characters; 1 to {chars:,}")
    if "\x00" in text:
        raise BadRecord("schema", f"{field}: holds a NUL character; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRecord("schema", f"{field}: holds half a surrogate pair, which is no text") from error


def foreign(fields: str, kind: str) -> BadRecord:
    """What to say of fields that another kind of event has."""
    return BadRecord("schema", f"{fields}: only {kind} have these")


def check_end(field: str, end: Ref | None, op: str, limits: RecordLimits) -> None:
    """Nothing for an end of a relationship, or a claim's subject; a delete may have none. Raises BadRecord."""
    if end is None:
        if op == "upsert":
            raise BadRecord("schema", f"{field}: missing; give its type and id")
        return
    id = end.id
    check_type(f"{field}.type", end.type)
    if not (0 < len(id) <= limits.id_chars and id.isascii() and "\x00" not in id):
        check_id(field, id, limits.id_chars)


def _check_claim(event: Event, limits: RecordLimits) -> None:
    if event.from_ is not None or event.to is not None:
        raise foreign("from, to", "relationships")
    check_end("subject", event.subject, event.op, limits)
    if event.predicate is not None:
        check_short("predicate", event.predicate, PREDICATE_CHARS)
    if event.op == "upsert" and (event.predicate is None or event.value is None):
        raise BadRecord("schema", f"{'predicate' if event.predicate is None else 'value'}: missing; a claim has one")


def check_names(props: dict[str, object], most: int) -> None:
    """Nothing if properties may be called so.

    Raises:
        BadRecord: a name is reserved or malformed, or there are too many.
    """
    if len(props) > most:
        raise BadRecord("constraint", f"props: {len(props):,} properties; at most {most:,}")
    if not props.keys() <= _good_names:
        for name in props:
            _check_name(name)
        if len(_good_names) > _GOOD_NAMES_MOST:
            _good_names.clear()
        _good_names.update(props)


def _check_name(name: str) -> None:
    if name in RESERVED_PROPERTIES or name.startswith("_"):
        raise BadRecord("schema", f"props.{name[:80]}: the name is reserved; use another")
    if _PROPERTY.fullmatch(name) is None:
        shown = name[:80].encode(errors="replace").decode()
        raise BadRecord("schema", f"props: {shown!r}: a letter, then up to 127 letters, digits, '_', '.' and '-'")


def check_position(event: Event) -> None:
    """Nothing for a position and its epoch, or none. Raises BadRecord."""
    position, epoch = event.position, event.epoch
    if epoch is not None and not 0 <= epoch <= MAX_INTEGER:
        raise BadRecord("schema", f"epoch: an integer from 0 to 2^64-1, not {_shown(epoch)}")
    if position is None:
        if epoch is not None:
            raise BadRecord("schema", "epoch: only with a position")
        return
    parts = [position] if isinstance(position, int) else position
    if not 1 <= len(parts) <= MAX_POSITION_PARTS:
        raise BadRecord("schema", f"position: 1 to {MAX_POSITION_PARTS} integers, not {len(parts)}")
    for part, most in zip(parts, (POSITION_MAX, *[MAX_INTEGER] * MAX_POSITION_PARTS), strict=False):
        if not 0 <= part <= most:
            raise BadRecord("schema", f"position: integers from 0 to 2^64-2, not {_shown(part)}")


def _shown(number: int) -> str:
    return str(number) if number.bit_length() < 256 else f"a number of {number.bit_length():,} bits"


def check_partition(event: Event) -> None:
    """Nothing for a partition of the source, or none. Raises BadRecord."""
    partition = event.partition
    if isinstance(partition, str):
        if partition:
            check_short("partition", partition, PARTITION_CHARS)
    elif partition is not None and not -(2**63) <= partition <= MAX_INTEGER:
        raise BadRecord("schema", f"partition: {_shown(partition)} does not fit 64 bits; send it as text")
