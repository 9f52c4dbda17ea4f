"""FalkorDB's parameters are text in the query's header, `CYPHER name=value …`: this writes that text.

Strings: the parser takes backslash before a quote or backslash and passes every other character through, so raw
UTF-8 is sent and nothing else is escaped; NUL ends a string there and is refused before. Floats: the parser fails
on subnormal numbers and answers print 15 digits, so a value that would change goes into the sidecar as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from cluster.errors import Rejected
from cluster.ids import case_tag, store_key
from cluster.model import Kind, Op, Record
from cluster.stores.shard_codec import sidecar
from cluster.stores.shard_rows import ends_of, overlay_key, overlay_owner

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
PROPERTY_KEY = r'"([A-Za-z_][A-Za-z0-9_.-]*)":'
"""A property's name in a canonical JSON object without escapes: a raw quote cannot stand inside a string."""
_MANY = 4
_SMALLEST_NORMAL = 2.2250738585072014e-308


def string(text: str) -> str:
    """A string literal."""
    if '"' not in text:
        return '"' + (text.replace("\\", "\\\\") if "\\" in text else text) + '"'
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def number(value: float) -> str:
    """A float literal that the parser takes; a subnormal one becomes zero (its exact value is in the sidecar)."""
    if not math.isfinite(value):
        raise Rejected(f"{value} is not a finite number")
    return "0.0" if abs(value) < _SMALLEST_NORMAL else repr(value)


def literal(value: Any) -> str:
    """A literal of None, a scalar, a list or a map with plain names."""
    kind = type(value)
    if kind is str:
        return string(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return number(value)
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name(k)}:{literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return _texts(value) or "[" + ",".join(map(literal, value)) + "]"
    raise Rejected(f"{kind.__name__} is no parameter")


def _texts(values: Sequence[Any]) -> str:
    """The list of many plain texts (keys), all at once; empty where it has to be written one by one."""
    if len(values) < _MANY or type(values[0]) is not str:
        return ""
    try:
        text = '","'.join(values)
    except TypeError:
        return ""
    return "" if text.count('"') != 2 * (len(values) - 1) or "\\" in text else f'["{text}"]'


def name(text: str) -> str:
    """A property name in backticks; only allow-listed characters."""
    if not _NAME.match(text):
        raise Rejected(f"property name {text!r}: use letters, digits, '_', '-' and '.'")
    return f"`{text}`"


def header(parameters: Mapping[str, Any]) -> str:
    """The header of a query with these parameters."""
    return "CYPHER " + " ".join(f"{k}={literal(v)}" for k, v in parameters.items()) + " "


def survives(value: float) -> bool:
    """Whether a float comes back as it went in."""
    if value == 0.0:
        return math.copysign(1.0, value) > 0
    return abs(value) >= _SMALLEST_NORMAL and float(f"{value:.15g}") == value


def _lossy(value: Any) -> bool:
    if type(value) is float:
        return not survives(value)
    return type(value) is list and any(type(v) is float and not survives(v) for v in value)


@lru_cache(maxsize=4096)
def _keys(text: str) -> tuple[str, str]:
    return f'"{text}":', f"{name(text)}:"


def properties(props: str) -> tuple[str, dict[str, Any] | None]:
    """A canonical JSON object as map entries, each after a comma, and the values that the store would change.

    JSON's own text is sent where it can be: a raw quote cannot stand inside a string, so `"name":` is a key and
    nothing else. Escapes and numbers that the parser does not take are written anew.
    """
    if props == "{}":
        return "", None
    values: dict[str, Any] = _decode(props)
    text, plain = props, "\\" not in props
    exact: dict[str, Any] | None = None
    for key, value in values.items():
        text = text.replace(*_keys(key))
        if type(value) in (float, list) and _lossy(value):
            exact = {**(exact or {}), key: value}
            plain = plain and type(value) is float and abs(value) >= _SMALLEST_NORMAL
    if plain:
        return "," + text[1:-1], exact
    return "".join(f",{name(k)}:{literal(v)}" for k, v in values.items()), exact


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _register(record: Record, key: str, marks: str) -> str:
    entries, exact = properties(record.props)
    dead = ",`_d`:true" if record.op == Op.DELETE else ""
    return (
        f'{{`_k`:"{key}",`_id`:{string(record.id)},`_v`:"{record.stamp}",`_s`:{string(record.source)}'
        f",`_x`:{string(sidecar(record, exact))}{dead}{marks}{entries}}}"
    )


def row(record: Record, registers: str | None = None) -> str:
    """The row that a write template takes for a record.

    Args:
        record: a register, or the merged view of several.
        registers: all of them (`_m`), where they are several.
    """
    tenant, case = record.tenant, record.case
    marks = "" if registers is None else f",`_m`:{string(registers)}"
    if record.kind == Kind.RELATIONSHIP:
        inner = _register(record, store_key(tenant, case, record.type, record.id), marks)
        a, b = ends_of(record)
        return f'{{a:"{a}",b:"{b}",c:{case_tag(tenant, case)},p:{inner}}}'
    marks += f",`_c`:{case_tag(tenant, case)},`_type`:{string(record.type)}"
    if record.is_overlay:
        marks += f',`_e`:"{store_key(tenant, case, record.type, record.id)}"'
        marks += f',`_o`:"{overlay_owner(tenant, record.source)}"'
        return _register(record, overlay_key(record), marks)
    if record.kind == Kind.CLAIM and record.a_type:
        marks += f',`_e`:"{store_key(tenant, case, record.a_type, record.a_id)}"'
    return _register(record, store_key(tenant, case, record.type, record.id), marks)
