"""Normalise: values as they are kept (`cluster.values`): absent ones removed, nested ones as canonical JSON text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.stages.bad import Bad, Slot, bad_of
from cluster.config import RecordLimits
from cluster.errors import BadRecord
from cluster.model import Event
from cluster.values import INT64_MAX, INT64_MIN, normal_value


def normalise(slots: Sequence[Slot[Event]], limits: RecordLimits) -> list[Slot[Event]]:
    """Events with canonical values. Again on the same events, it changes nothing."""
    cleaned: list[Slot[Event]] = []
    for slot in slots:
        if type(slot) is Event:
            try:
                if slot.props:
                    slot.props = normal_props(slot.props, limits)
                if slot.value is not None or slot.confidence is not None:
                    normalise_claim(slot, limits)
            except BadRecord as error:
                cleaned.append(bad_of(error, slot.type))
                continue
            except RecursionError:
                cleaned.append(Bad("schema", "props or value: nested too deeply; send it as text", slot.type))
                continue
        cleaned.append(slot)
    return cleaned


def normal_props(props: dict[str, Any], limits: RecordLimits) -> dict[str, Any]:
    """Canonical values under the same names; the same object where nothing had to change.

    Raises:
        BadRecord: a value cannot be kept.
    """
    changed: dict[str, Any] | None = None
    short = limits.property_bytes // 4
    for name, value in props.items():
        kind = type(value)
        if kind is str:
            if len(value) <= short and value.isascii() and "\x00" not in value:
                continue
        elif kind is bool:
            continue
        elif kind is int:
            if INT64_MIN <= value <= INT64_MAX:
                continue
        elif kind is float and value - value == 0.0:  # finite: the difference is NaN otherwise
            continue
        normal = normal_value(f"props.{name}", value, limits)
        if normal is not value or normal is None:
            changed = {} if changed is None else changed
            changed[name] = normal
    if changed is None:
        return props
    return {name: value for name, value in {**props, **changed}.items() if value is not None}


def normalise_claim(event: Event, limits: RecordLimits) -> None:
    """Makes a claim's value and confidence canonical, in place. Raises BadRecord: one cannot be kept."""
    event.value = normal_value("value", event.value, limits)
    if event.confidence is not None:
        try:
            event.confidence = float(event.confidence)
        except OverflowError as error:
            raise BadRecord("schema", "confidence: too great for a float64") from error
        if event.confidence - event.confidence != 0.0:
            raise BadRecord("schema", f"confidence: {event.confidence} is not a finite number")
