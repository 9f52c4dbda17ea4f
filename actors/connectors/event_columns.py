"""The event format's own fields as columns of CSV and Parquet: `from.id`, `subject.type`, `props.name`, …

A CSV column may carry a type after a colon (`props.age:int`); without one a cell is a string. `value:int` likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.connectors.base import json_bytes
from actors.connectors.mapping import listed
from actors.connectors.rows import typed
from cluster.errors import Rejected

FIELDS = (
    "tenant", "case", "kind", "op", "type", "id", "from.type", "from.id", "to.type", "to.id", "subject.type",
    "subject.id", "predicate", "value", "confidence", "source", "epoch", "partition", "position", "event_time",
)  # fmt: skip
OBJECTS = ("from", "to", "subject", "props")
_TYPES = ("string", "int", "float", "bool", "json")
_OWN_TYPE = {"confidence": "float", "epoch": "int", "position": "json"}
_NEEDED = ("kind", "type", "id")


def refuse_foreign(columns: Sequence[str], path: object) -> None:
    """Refuse columns that are no event's, or that lack what every event needs.

    Raises:
        Rejected: the message lists the columns and says that a mapping is needed.
    """
    lacking = [name for name in _NEEDED if name not in columns]
    foreign = [name for name in columns if name not in FIELDS and name not in OBJECTS and not name.startswith("props.")]
    if lacking or foreign:
        what = f"no column {', '.join(map(repr, lacking))}" if lacking else f"unknown columns {listed(foreign)}"
        raise Rejected(
            f"{path} does not hold events as they stand ({what}): give a mapping, as in --map type=person "
            f"--map 'id={{{columns[0][:80] if columns else 'column'}}}'. Columns: {listed(columns)}"
        )


def split_type(column: str) -> tuple[str, str]:
    """(name, type) of a CSV column's title."""
    name, colon, kind = column.rpartition(":")
    if colon and kind in _TYPES:
        return name, kind
    return column, _OWN_TYPE.get(column, "string")


def csv_event(columns: Sequence[str], defaults: Mapping[str, Any], path: object) -> Callable[[list[str], bool], bytes]:
    """A function from the cells of a row to the event's JSON; empty cells are absent.

    Its second argument says that all cells may stand in JSON as they are (`CsvRow.plain`): a full row is then put
    into a template, several times as fast. It raises `BadRecord` where a cell does not fit its type.

    Raises:
        Rejected: the columns are not the event format's.
    """
    titles = [split_type(column) for column in columns]
    refuse_foreign([name for name, _ in titles], path)
    top, inner, typing = _layout(titles)
    template, order = _template(top, inner, {at for _, _, _, at in typing}, defaults)
    base, straight = dict(defaults), order == list(range(len(order)))

    def make(cells: list[str], plain: bool) -> bytes:
        if plain and "" not in cells:
            texts = cells.copy()
            for _, _, kind, at in typing:
                value = typed(cells[at], kind, columns[at])
                texts[at] = str(value) if kind == "int" else json_bytes(value).decode()
            return (template % tuple(texts if straight else [texts[at] for at in order])).encode()
        event: dict[str, Any] = {**base, **{name: cells[at] for name, at in top if cells[at]}}
        for section, names in inner:
            if found := {name: cells[at] for name, at in names if cells[at]}:
                event[section] = found
        for within, name, kind, at in typing:
            if text := cells[at]:
                target = event if within is None else event[within]
                target[name] = typed(text, kind, columns[at])
        return json_bytes(event)

    return make


_Top = list[tuple[str, int]]
_Inner = list[tuple[str, list[tuple[str, int]]]]
_Typing = list[tuple[str | None, str, str, int]]


def _layout(titles: Sequence[tuple[str, str]]) -> tuple[_Top, _Inner, _Typing]:
    """Where each column goes: into the event, into an object of it; and which are not strings."""
    top: _Top = []
    inner: dict[str, list[tuple[str, int]]] = {}
    typing: _Typing = []
    for at, (title, kind) in enumerate(titles):
        section, dot, name = title.partition(".")
        if dot:
            inner.setdefault(section, []).append((name, at))
        else:
            top.append((title, at))
        if kind != "string":
            typing.append((section if dot else None, name if dot else title, kind, at))
    return top, list(inner.items()), typing


def _template(top: _Top, inner: _Inner, bare: set[int], defaults: Mapping[str, Any]) -> tuple[str, list[int]]:
    """JSON with `%s` for cells, and the column of each; `bare` columns stand without quotes."""
    order: list[int] = []

    def slot(name: str, at: int) -> str:
        order.append(at)
        return f"{_literal(name)}:" + ("%s" if at in bare else '"%s"')

    names = {name for name, _ in top}
    parts = [f"{_literal(name)}:{_literal(value)}" for name, value in defaults.items() if name not in names]
    parts += [slot(name, at) for name, at in top]
    for section, columns in inner:
        parts.append(f"{_literal(section)}:{{" + ",".join([slot(name, at) for name, at in columns]) + "}")
    return "{" + ",".join(parts) + "}", order


def _literal(value: Any) -> str:
    return json_bytes(value).decode().replace("%", "%%")


def nest_columns(row: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An event from a Parquet row whose columns may be dotted or objects; absent values are left out already."""
    event: dict[str, Any] = dict(defaults)
    for column, value in row.items():
        section, dot, name = column.partition(".")
        if dot:
            event.setdefault(section, {})[name] = value
        else:
            inner = column in OBJECTS and isinstance(value, dict)
            event[column] = {**event.get(column, {}), **value} if inner else value
    return event
