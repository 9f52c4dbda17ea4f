"""How an Avro schema differs from an earlier one, for who reads by the earlier: what breaks, what is new.

The rules are those of Avro's schema resolution, with the earlier schema as the reader's and the later as the writer's;
besides, a logical type has to stay: the same number as another kind of time or with another scale is another value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import Rejected
from cluster.streams.avro_shape import PRIMITIVES, full_name, loaded
from cluster.streams.schemas import Schema

_PROMOTED = {
    "int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}, "string": {"bytes"},
    "bytes": {"string"},
}  # fmt: skip
_LOGICAL = ("logicalType", "precision", "scale")
_TOLD_MOST = 100
Names = Mapping[str, Any]


@dataclass
class Changes:
    """What differs, up to a bound.

    Args:
        breaking: why who reads by the earlier cannot read what the later one writes; each begins with a path.
        added: fields that the later one has, by path.
    """

    breaking: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def take(self, inner: Changes, path: str = "") -> None:
        """Add what differs at a path within this."""
        self.breaking += [_below(path, told) for told in inner.breaking[: _TOLD_MOST - len(self.breaking)]]
        self.added += [f"{path}{name}" for name in inner.added[: _TOLD_MOST - len(self.added)]]


def avro_changes(earlier: Schema, later: Schema) -> Changes:
    """The differences. Both have to be schemas that are read (`avro_shape`), or Rejected is raised."""
    found = _Comparison(_types(earlier), _types(later)).types(_top(earlier), _top(later))
    whole = [told if told.startswith((".", "[", "{")) else f"the value {told}" for told in found.breaking]
    return Changes([told.lstrip(".") for told in whole], [name.lstrip(".") for name in found.added])


def _top(schema: Schema) -> Any:
    return _expanded(loaded(schema.text), "", {})


def _types(schema: Schema) -> Names:
    found: dict[str, Any] = {}
    for text in (*(text for _, text in schema.parts), schema.text):
        _expanded(loaded(text), "", found)
    return found


def _expanded(schema: Any, space: str, names: dict[str, Any]) -> Any:
    """The schema with full names everywhere; named types are noted."""
    if isinstance(schema, str):
        inside = f"{space}.{schema}" if space and "." not in schema and schema not in PRIMITIVES else schema
        return inside
    if isinstance(schema, list):
        return [_expanded(branch, space, names) for branch in schema]
    if not isinstance(schema, dict):
        raise Rejected(f"the schema holds {type(schema).__name__}, which is no type")
    kind = schema.get("type")
    if kind in ("record", "error", "enum", "fixed"):
        name, inside = full_name(schema, space)
        found = {**schema, "name": name}
        names[name] = found
        if kind in ("record", "error"):
            found["fields"] = [
                {**one, "type": _expanded(one.get("type"), inside, names)} for one in schema.get("fields", ())
            ]
        return found
    if kind == "array":
        return {**schema, "items": _expanded(schema.get("items"), space, names)}
    if kind == "map":
        return {**schema, "values": _expanded(schema.get("values"), space, names)}
    if isinstance(kind, str) and kind in PRIMITIVES:
        return schema
    return _expanded(kind, space, names)


class _Comparison:
    """Walks two schemas, of which one does not contain itself, so it ends; each pair of records is compared once."""

    def __init__(self, earlier: Names, later: Names) -> None:
        self._earlier, self._later = earlier, later
        self._compared: dict[tuple[str, str], Changes] = {}

    def types(self, reader: Any, writer: Any) -> Changes:
        """What differs, with paths from here."""
        reader, writer = _named(reader, self._earlier), _named(writer, self._later)
        found = Changes()
        for branch in writer if isinstance(writer, list) else [writer]:
            found.take(self._branch(reader, _named(branch, self._later)))
        return found

    def _branch(self, reader: Any, writer: Any) -> Changes:
        """One type of the writer against those that the reader may take: the one that is called so, or any other."""
        if not isinstance(reader, list):
            return self._alike(reader, writer)
        branches = [_named(branch, self._earlier) for branch in reader]
        alike = next((branch for branch in branches if _called(branch) == _called(writer)), None)
        if alike is not None:
            return self._alike(alike, writer)
        if any(_kind(branch) in _PROMOTED.get(_kind(writer), ()) for branch in branches):
            return Changes()
        return Changes([f"may be written as {_told(writer)}, which is not read"])

    def _alike(self, reader: Any, writer: Any) -> Changes:
        one, other = _kind(reader), _kind(writer)
        if one != other:
            promoted = one in _PROMOTED.get(other, ())
            return Changes([] if promoted else [f"is written as {_told(writer)}, and read as {_told(reader)}"])
        found = Changes()
        if (was := _logical(reader)) != (now := _logical(writer)):
            found.breaking.append(f"is written as {now or 'plain'}, and read as {was or 'plain'}")
        match one:
            case "record" | "error":
                found.take(self._records(reader, writer))
            case "enum":
                if "default" not in reader and (new := set(writer["symbols"]) - set(reader["symbols"])):
                    found.breaking.append(f"may be written as {', '.join(sorted(new))}, which is not read")
            case "fixed":
                if reader.get("size") != writer.get("size"):
                    found.breaking.append("is written in another size")
            case "array":
                found.take(self.types(reader["items"], writer["items"]), "[]")
            case "map":
                found.take(self.types(reader["values"], writer["values"]), "{}")
        return found

    def _records(self, reader: Any, writer: Any) -> Changes:
        pair = (reader["name"], writer["name"])
        if pair not in self._compared:
            self._compared[pair] = self._fields(reader, writer)
        return self._compared[pair]

    def _fields(self, reader: Any, writer: Any) -> Changes:
        found, known = Changes(), set()
        theirs = {one["name"]: one for one in writer["fields"]}
        for mine in reader["fields"]:
            names = (mine["name"], *mine.get("aliases", ()))
            name = next((name for name in names if name in theirs), None)
            if name is not None:
                known.add(name)
                found.take(self.types(mine["type"], theirs[name]["type"]), f".{mine['name']}")
            elif "default" not in mine:
                found.take(Changes(["is not written, and has to be there"]), f".{mine['name']}")
        found.take(Changes(added=[f".{name}" for name in theirs if name not in known]))
        return found


def _named(schema: Any, names: Names) -> Any:
    return names.get(schema, schema) if isinstance(schema, str) else schema


def _kind(schema: Any) -> str:
    return "union" if isinstance(schema, list) else str(schema.get("type") if isinstance(schema, dict) else schema)


def _told(schema: Any) -> str:
    kind, logical = _kind(schema), _logical(schema)
    return f"{kind} ({logical})" if logical else kind


def _logical(schema: Any) -> str:
    return " ".join(str(schema[key]) for key in _LOGICAL if key in schema) if isinstance(schema, dict) else ""


def _called(schema: Any) -> tuple[str, str]:
    """What a branch of a union is found by: its kind and, if it has one, its name without namespace."""
    name = schema.get("name", "") if isinstance(schema, dict) else ""
    return _kind(schema), str(name).rpartition(".")[2]


def _below(path: str, told: str) -> str:
    """A finding that is told from a place further up."""
    return f"{path}{told}" if not path or told.startswith((".", "[", "{")) else f"{path} {told}"
