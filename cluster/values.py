"""Canonical values: what a property may be, and the one text that stands for it.

A value is a string, a boolean, an int64, a finite float64 or a list of one of these; 1 and 1.0 differ, null is
absent, anything else is kept as its canonical JSON text. Canonical JSON: keys sorted, no blanks, shortest
floats that read back the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.config import RecordLimits
from cluster.errors import BadRecord

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
Scalar = str | bool | int | float
Value = Scalar | list[str] | list[bool] | list[int] | list[float]

_encoder = msgspec.json.Encoder(order="sorted")


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a decoded value.

    Raises:
        BadRecord: it has a number or text that JSON in UTF-8 cannot hold.
    """
    try:
        return _encoder.encode(value).decode()
    except (OverflowError, ValueError, UnicodeError, RecursionError) as error:
        raise BadRecord("schema", f"value cannot be written as JSON: {error}") from error


def _check_text(name: str, value: str) -> str:
    if "\x00" in value:
        raise BadRecord("schema", f"{name}: holds a NUL character; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRecord("schema", f"{name}: holds half a surrogate pair, which is no text") from error
    return value


def _check_finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise BadRecord("schema", f"{name}: {value} is not a finite number")
    return value


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(_has_nul(k) or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _nested(name: str, value: Any) -> str:
    if _has_nul(value):
        raise BadRecord("schema", f"{name}: holds a NUL character; remove it")
    return canonical_json(value)


def _normal_list(name: str, value: list[Any], limits: RecordLimits) -> Value:
    if len(value) > limits.list_items:
        raise BadRecord("constraint", f"{name}: {len(value)} items; at most {limits.list_items}")
    kinds = set(map(type, value))
    if len(kinds) > 1 or not kinds <= {str, bool, int, float}:
        return _nested(name, value)
    return [normal_scalar(name, item) for item in value]  # type: ignore[return-value]


def normal_scalar(name: str, value: Scalar) -> Scalar:
    """A checked scalar, as it is."""
    kind = type(value)
    if kind is str:
        return _check_text(name, value)  # type: ignore[arg-type]
    if kind is float:
        return _check_finite(name, value)  # type: ignore[arg-type]
    if kind is int and not INT64_MIN <= value <= INT64_MAX:  # type: ignore[operator]
        raise BadRecord("schema", f"{name}: {value} does not fit 64 bits; send it as a string")
    return value


def normal_value(name: str, value: Any, limits: RecordLimits) -> Value | None:
    """The canonical value of a decoded JSON value; None means absent.

    Raises:
        BadRecord: the value cannot be kept as it is; the message says why.
    """
    kind = type(value)
    if kind is str:
        if len(value) * 4 > limits.property_bytes and len(value.encode(errors="replace")) > limits.property_bytes:
            raise BadRecord("too_large", f"{name}: over {limits.property_bytes} bytes")
        return _check_text(name, value)
    if kind is bool or value is None:
        return value  # type: ignore[no-any-return]
    if kind is int or kind is float:
        return normal_scalar(name, value)
    normal = _normal_list(name, value, limits) if kind is list else _nested(name, value)
    if len(canonical_json(normal)) > limits.property_bytes:
        raise BadRecord("too_large", f"{name}: over {limits.property_bytes} bytes")
    return normal
