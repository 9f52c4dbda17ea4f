"""Every rule that one event breaks by itself, not the first alone: for people who put it right, not for batches.

The rules are `validate`'s and `normalise`'s own. What depends on who sends (tenant, source) is not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from actors.stages.normalise import normalise_claim
from actors.stages.times import utc_text
from actors.stages.validate import (
    PREDICATE_CHARS,
    check_end,
    check_id,
    check_names,
    check_partition,
    check_position,
    check_short,
    check_type,
    foreign,
)
from cluster.config import RecordLimits
from cluster.errors import BadRecord
from cluster.model import Event
from cluster.values import normal_value

_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(Event)}
_STAND_INS: dict[str, Any] = {"case": "-", "kind": "entity", "op": "upsert", "type": "x", "id": "-"}
"""For fields that cannot be read, so that the others can be looked at."""
Place = tuple[str, ...]
"""Names of fields, from the outermost on."""


class Breach(NamedTuple):
    """A rule that is broken, and where."""

    place: Place
    rule: str


def breaches(fields: Mapping[str, Any], limits: RecordLimits) -> Iterator[Breach]:
    """What is wrong with the fields of an event, as they came; nothing where it is one."""
    for name in fields:
        if name not in _FIELDS:
            yield Breach((name,), "unknown field: no event has one of this name")
    values, unread = dict(_STAND_INS), set[str]()
    for name, field in _FIELDS.items():
        if name not in fields:
            if field.required:
                yield Breach((name,), "missing: every event has one")
            continue
        try:
            values[field.name] = msgspec.convert(fields[name], field.type)
        except (msgspec.ValidationError, OverflowError) as error:
            unread.add(name)
            yield Breach((name,), str(error))
    event = Event(**values)
    yield from (found for found in _of_any_kind(event, limits) if found.place[0] not in unread)
    if "kind" in fields and "kind" not in unread:
        yield from (found for found in _of_its_kind(event, limits) if found.place[0] not in unread)


def _of_any_kind(event: Event, limits: RecordLimits) -> Iterator[Breach]:
    if event.tenant is not None:
        yield from _broken(("tenant",), check_short, "tenant", event.tenant, limits.tenant_chars)
    yield from _broken(("case",), check_short, "case", event.case, limits.case_chars)
    yield from _broken(("type",), check_type, "type", event.type)
    yield from _broken(("id",), check_id, "id", event.id, limits.id_chars)
    props = event.props or {}
    if len(props) > limits.properties:
        yield Breach(("props",), f"{len(props):,} properties; at most {limits.properties:,}")
    for name, value in props.items():
        yield from _broken(("props", name), check_names, {name: None}, 1)
        yield from _broken(("props", name), normal_value, f"props.{name}", value, limits)
    if event.event_time is not None:
        yield from _broken(("event_time",), utc_text, event.event_time)
    yield from _broken(("position",), check_position, event)
    yield from _broken(("partition",), check_partition, event)


def _of_its_kind(event: Event, limits: RecordLimits) -> Iterator[Breach]:
    for name, end in (("from", event.from_), ("to", event.to)):
        if event.kind == "relationship":
            yield from _broken((name,), check_end, name, end, event.op, limits)
        elif end is not None:
            yield Breach((name,), foreign(name, "relationships").reason)
    if event.kind == "claim":
        yield from _broken(("subject",), check_end, "subject", event.subject, event.op, limits)
        if event.predicate is not None:
            yield from _broken(("predicate",), check_short, "predicate", event.predicate, PREDICATE_CHARS)
    for name in ("subject", "predicate", "value", "confidence"):
        said = getattr(event, name)
        if event.kind != "claim" and said is not None:
            yield Breach((name,), foreign(name, "claims").reason)
        elif event.kind == "claim" and event.op == "upsert" and said is None and name in ("predicate", "value"):
            yield Breach((name,), "missing: a claim has one")
    if event.kind == "claim":
        yield from _broken(("value",), normalise_claim, event, limits)


def _broken(place: Place, check: Callable[..., object], *arguments: Any) -> Iterator[Breach]:
    try:
        check(*arguments)
    except BadRecord as error:
        yield Breach(place, error.reason)
    except RecursionError:
        yield Breach(place, "nested too deeply; send it as text")
