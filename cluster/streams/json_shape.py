"""Whether a JSON Schema can be held against any value within bounds.

What refers to itself is followed as deep as a record's bytes say, and what refers twice to the next, which refers twice
to the next, is followed 2^n times. So a schema is written out in thought, with all that it refers to, and has to be
small; and it may not contain itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.errors import Rejected
from cluster.streams.avro_shape import loaded
from cluster.streams.schemas import Schema

_DEPTH_MOST, _PARTS_MOST = 64, 20_000
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_INNER = frozenset({
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "items", "prefixItems", "additionalItems", "contains",
    "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_UNFOLLOWED = ("$dynamicRef", "$recursiveRef")


def check_json_shape(schema: Schema) -> None:
    """Nothing for a schema that is read. Raises Rejected."""
    whole = {"": loaded(schema.text), **{name: loaded(text) for name, text in schema.parts}}
    _Written(whole).parts(whole[""], "", 0)


class _Written:
    """Schemas with what they refer to, written out.

    Args:
        documents: by the names under which they are referred to; "" is the schema itself.
    """

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self._documents = documents
        self._known: dict[tuple[str, str], int | None] = {("", ""): None}

    def parts(self, schema: Any, document: str, depth: int) -> int:
        """How many schemas one is, written out."""
        if not isinstance(schema, dict):
            return 1
        if depth > _DEPTH_MOST:
            raise Rejected(f"the schema is nested more than {_DEPTH_MOST} deep")
        if depth and "$id" in schema:
            raise Rejected("a schema within the schema has an $id of its own: what it refers to is not followed")
        count = 1
        for key, value in schema.items():
            if key in _UNFOLLOWED:
                raise Rejected(f"{key} is not followed")
            if key == "$ref":
                count += self._referred(str(value), document, depth + 1)
            elif key in _NAMED or key in _INNER:
                inner = value if isinstance(value, list) else [value]
                if key in _NAMED:
                    inner = list(value.values()) if isinstance(value, dict) else []
                count += sum(self.parts(one, document, depth + 1) for one in inner)
        if count > _PARTS_MOST:
            raise Rejected(f"the schema, written out, has more than {_PARTS_MOST:,} parts")
        return count

    def _referred(self, reference: str, document: str, depth: int) -> int:
        name, _, pointer = reference.partition("#")
        place = (name or document, pointer)
        if place not in self._known:
            self._known[place] = None
            self._known[place] = self.parts(self._found(reference, *place), place[0], depth)
        count = self._known[place]
        if count is None:
            raise Rejected(f"the schema contains itself ({reference}): values of any depth are not read")
        return count

    def _found(self, reference: str, name: str, pointer: str) -> Any:
        if name not in self._documents or (pointer and not pointer.startswith("/")):
            raise Rejected(f"{reference} is not among what the registry says that the schema refers to")
        found = self._documents[name]
        for step in pointer.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise Rejected(f"the schema has nothing at {reference}")
        return found


_STRUCTURE = frozenset({
    "$schema", "$id", "$ref", "$defs", "definitions", "type", "required", "properties", "patternProperties",
    "additionalProperties", "items", "prefixItems", "additionalItems", "allOf", "anyOf",
})  # fmt: skip
_MAPS = _NAMED | {"$defs", "definitions"}


def structure_of(schema: Any) -> Any:
    """The schema without what is about single values: it takes all that the schema takes, and more.

    One of several (`oneOf`) becomes any of them: without their values more than one may fit.
    """
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key in schema.keys() & _STRUCTURE:
        found[key] = _structure_at(key, schema[key])
    if "oneOf" in schema:
        found["allOf"] = [*found.get("allOf", ()), {"anyOf": _structure_at("anyOf", schema["oneOf"])}]
    return found


def _structure_at(key: str, value: Any) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {name: structure_of(inner) for name, inner in value.items()}
    if key not in _INNER:
        return value
    return [structure_of(inner) for inner in value] if isinstance(value, list) else structure_of(value)
