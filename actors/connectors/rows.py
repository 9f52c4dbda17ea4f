"""From a row to events: compile a mapping, or the event format's own columns, into one function of a row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from actors.connectors.base import json_bytes
from actors.connectors.mapping import Column, ColumnMapping, EventMapping, template_parts
from cluster.errors import BadRecord

Row = TypeVar("Row")
Fetch = Callable[[Row], Any]
"""A column's value in a row; None where it is absent."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_MAY_BE_ABSENT = ("event_time", "confidence")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def typed(text: str, kind: str, column: str) -> Any:
    """The text of a cell as the declared type: string, int, float, bool or json.

    Raises:
        BadRecord: it does not read as that type.
    """
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    try:
        if kind == "float" and "_" not in text and math.isfinite(number := float(text)):
            return number
        if kind == "bool":
            return _TRUTH[text.lower()]
        if kind == "json":
            return msgspec.json.decode(text)
        if kind == "string":
            return text
    except (ValueError, KeyError, RecursionError, msgspec.DecodeError):
        pass
    raise BadRecord("schema", f"column {column!r}: {text[:80]!r} is no {kind}")


def as_text(value: Any, column: str) -> str:
    """A scalar inside a template, as text.

    Raises:
        BadRecord: the value is a list or an object.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json_bytes(value).decode()
    raise BadRecord("schema", f"column {column!r} is a {type(value).__name__}: a key needs text, a number or a boolean")


def lookup(column: str) -> Fetch[Mapping[str, Any]]:
    """The value under a name of a JSON object or Parquet row; dots reach into nested objects."""
    steps = column.split(".")

    def fetch(row: Mapping[str, Any]) -> Any:
        if column in row:
            return row[column]
        found: Any = row
        for step in steps:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    return fetch if len(steps) > 1 else lambda row: row.get(column)


def typed_fetch(fetch: Fetch[Row], kind: str | None, column: str) -> Fetch[Row]:
    """`fetch`, its texts read as the declared type; what is no text stays."""
    if kind is None or kind == "string":
        return fetch

    def fetch_typed(row: Row) -> Any:
        value = fetch(row)
        return typed(value, kind, column) if isinstance(value, str) and value else value

    return fetch_typed


@dataclass(frozen=True)
class Mapped(Generic[Row]):
    """A mapping compiled for rows of one kind."""

    _events: tuple[Callable[[Row], dict[str, Any] | None], ...]

    def events(self, row: Row) -> list[tuple[int, bytes]]:
        """(number from 1, JSON) of each event that the row gives; all or none.

        Raises:
            BadRecord: a key's column is empty or a value does not fit its type.
        """
        made = [(number, make(row)) for number, make in enumerate(self._events, 1)]
        return [(number, json_bytes(event)) for number, event in made if event is not None]


def compile_mapping(
    mapping: ColumnMapping, column: Callable[[str], Fetch[Row]], defaults: Mapping[str, Any]
) -> Mapped[Row]:
    """Compile a mapping.

    Args:
        column: gives the function that fetches a column's value from a row.
        defaults: fields of the event for what the mapping leaves out.
    """

    def fetch(name: str) -> Fetch[Row]:
        return typed_fetch(column(name), mapping.types.get(name), name)

    return Mapped(tuple(_event(event, fetch, defaults) for event in mapping.events))


def _event(
    event: EventMapping, fetch: Callable[[str], Fetch[Row]], defaults: Mapping[str, Any]
) -> Callable[[Row], dict[str, Any] | None]:
    fixed: dict[str, Any] = {**defaults, "kind": event.kind}
    fields: list[tuple[str, Fetch[Row]]] = []
    for name, text in event.templates():
        parts = template_parts(text)
        if "." not in name and len(parts) == 1 and not isinstance(parts[0], Column):
            fixed[name] = parts[0]
        else:
            fields.append((name, _template(text, name, fetch)))
    ends = [(name, name.partition(".")[0], name.partition(".")[2], fill) for name, fill in fields]
    props = [(name, fetch(column)) for name, column in event.props.items()]
    when = fetch(event.when) if event.when is not None else None
    if isinstance(event.confidence, float):
        fixed["confidence"] = event.confidence

    def make(row: Row) -> dict[str, Any] | None:
        if when is not None and when(row) in (None, ""):
            return None
        made = fixed.copy()
        for name, section, inner, fill in ends:
            value = fill(row)
            if inner:
                made.setdefault(section, {})[inner] = value
            elif value is not None:
                made[name] = value
        values = event.constants.copy() if event.constants else {}
        for name, get in props:
            if (value := get(row)) is not None and value != "":
                values[name] = value
        if values:
            made["props"] = values
        return made

    return make


def _template(text: str, field: str, fetch: Callable[[str], Fetch[Row]]) -> Fetch[Row]:
    parts = [(part, fetch(part) if isinstance(part, Column) else None) for part in template_parts(text)]
    keeps_type = len(parts) == 1 and field in ("value", "confidence")

    def fill(row: Row) -> Any:
        texts: list[str] = []
        for part, get in parts:
            value = part if get is None else get(row)
            if value is None or (value == "" and get is not None):
                if field in _MAY_BE_ABSENT:
                    return None
                problem = f"column {part!r} is empty and {field!r} needs it (`when: {part}` skips such rows)"
                raise BadRecord("schema", problem)
            if keeps_type and get is not None:
                return value
            texts.append(as_text(value, part))
        return "".join(texts)

    if len(parts) == 1:
        only, get_only = parts[0]
        return _first_text(get_only, fill) if get_only is not None else lambda row: str(only)
    return fill


def _first_text(get: Fetch[Row], fill: Fetch[Row]) -> Fetch[Row]:
    """`get` where it gives text, which needs no more; else `fill`."""

    def first(row: Row) -> Any:
        value = get(row)
        return value if type(value) is str and value else fill(row)

    return first
