"""What values of an Avro schema look like: that they can be read within bounds, whatever a record's bytes say.

An Avro reader follows its schema: one that contains itself is read as deep as a record's bytes say, beyond any stack;
items that take no bytes may come in any number; and a few types that each hold the next one twice make a value of any
size out of nothing. So such schemas are refused, before a record of theirs is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import Rejected
from cluster.streams.schemas import Schema

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_DEPTH_MOST, _VALUES_MOST = 64, 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Values of one type.

    Args:
        empty: whether one may take no bytes.
        depth: of nested values.
        values: in one value, each array or map counted as if it had one item.
        floats: whether it holds numbers that may be none.
    """

    empty: bool
    depth: int = 1
    values: int = 1
    floats: bool = False


_SIMPLE = {name: Shape(name == "null", floats=name in ("float", "double")) for name in PRIMITIVES}


def shape_of(schema: Schema) -> Shape:
    """The shape of a schema's values. Raises Rejected for one that is not read."""
    known: dict[str, Shape | None] = dict(_SIMPLE)
    for _, text in schema.parts:
        _shape(loaded(text), "", known, 0)
    return _shape(loaded(schema.text), "", known, 0)


def loaded(text: str) -> Any:
    """A schema's text as values; a bare name is a schema, too. Raises Rejected."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.strip() in PRIMITIVES:
            return text.strip()
        raise Rejected(f"the schema is no JSON: {error}") from error


def full_name(schema: Mapping[str, Any], space: str) -> tuple[str, str]:
    """(full name, namespace for what is inside) of a named type."""
    name = str(schema.get("name", ""))
    if "." in name:
        return name, name.rpartition(".")[0]
    space = str(schema.get("namespace", space) or "")
    return (f"{space}.{name}" if space else name), space


def found_name(name: str, space: str, known: Mapping[str, Any]) -> str:
    """The full name that a reference means."""
    inside = f"{space}.{name}" if space and "." not in name else name
    return inside if inside in known else name


def _shape(schema: Any, space: str, known: dict[str, Shape | None], depth: int) -> Shape:
    if depth > _DEPTH_MOST:
        raise Rejected(f"the schema is nested more than {_DEPTH_MOST} deep")
    if isinstance(schema, str):
        return _known(found_name(schema, space, known), known)
    if isinstance(schema, list):
        inner = [_shape(branch, space, known, depth + 1) for branch in schema]
        return _bounded(Shape(False, 1 + max((s.depth for s in inner), default=0),
                              1 + max((s.values for s in inner), default=0), any(s.floats for s in inner)))  # fmt: skip
    if not isinstance(schema, dict):
        raise Rejected(f"the schema holds {type(schema).__name__}, which is no type")
    match schema.get("type"):
        case "record" | "error":
            return _record(schema, space, known, depth)
        case "enum":
            return _named(schema, space, known, Shape(False))
        case "fixed":
            return _named(schema, space, known, Shape(not schema.get("size")))
        case "array":
            items = _shape(schema.get("items"), space, known, depth + 1)
            if items.empty:
                raise Rejected("the schema has an array whose items take no bytes: it would have no bound")
            return _bounded(Shape(False, 1 + items.depth, 1 + items.values, items.floats))
        case "map":
            held = _shape(schema.get("values"), space, known, depth + 1)
            return _bounded(Shape(False, 1 + held.depth, 1 + held.values, held.floats))
        case other:
            return _shape(other, space, known, depth + 1)


def _record(schema: dict[str, Any], space: str, known: dict[str, Shape | None], depth: int) -> Shape:
    name, inside = full_name(schema, space)
    known[name] = None  # open: whoever names it now is within itself
    fields = schema.get("fields")
    if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
        raise Rejected(f"record {name!r} of the schema has no fields")
    inner = [_shape(field.get("type"), inside, known, depth + 1) for field in fields]
    known[name] = found = _bounded(
        Shape(all(s.empty for s in inner), 1 + max((s.depth for s in inner), default=0),
              1 + sum(s.values for s in inner), any(s.floats for s in inner))
    )  # fmt: skip
    return found


def _named(schema: dict[str, Any], space: str, known: dict[str, Shape | None], shape: Shape) -> Shape:
    known[full_name(schema, space)[0]] = shape
    return shape


def _known(name: str, known: Mapping[str, Shape | None]) -> Shape:
    if name not in known:
        raise Rejected(f"the schema names a type {name!r} that it does not have")
    found = known[name]
    if found is None:
        raise Rejected(f"type {name!r} of the schema contains itself: values of any depth are not read")
    return found


def _bounded(shape: Shape) -> Shape:
    if shape.depth > _DEPTH_MOST or shape.values > _VALUES_MOST:
        raise Rejected(f"values of the schema are over {_DEPTH_MOST} deep, or of over {_VALUES_MOST:,} parts")
    return shape
