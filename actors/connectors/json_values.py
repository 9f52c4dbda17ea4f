"""Values held against a JSON Schema: which are not of its structure, and which are of it and wrong all the same.

The structure is what a program that writes another schema gets wrong in every record: a property that has to be there
and is not, one of another type, one that must not be there. The rest (patterns, lengths, ranges, choices) is about one
value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from actors.connectors.base import json_bytes
from actors.connectors.findings import ABSENT, FINDINGS_MOST, Finding, at, finding, shown
from cluster.errors import BadRecord, Rejected
from cluster.streams.avro_shape import loaded
from cluster.streams.json_shape import check_json_shape, structure_of
from cluster.streams.schemas import Schema

_BASE = "json-schema:///"
_SHOWN_CHARACTERS, _BRANCHES_SHOWN = 200, 3


@dataclass(frozen=True, slots=True)
class Breach:
    """How a value is not of the structure.

    Args:
        key: the same for every record that breaks it in this way.
        told: for people; holds nothing of the record.
    """

    key: str
    told: str


class JsonValues:
    """Reads values of one schema. Raises Rejected for a schema that is not read."""

    def __init__(self, schema: Schema) -> None:
        check_json_shape(schema)
        parts = {name: loaded(text) for name, text in schema.parts}
        self._validator = _validator(loaded(schema.text), parts)
        structures = {name: structure_of(part) for name, part in parts.items()}
        self._structure = _validator(structure_of(loaded(schema.text)), structures)

    def read(self, payload: bytes) -> Any:
        """The value, if the schema takes it. Raises BadRecord."""
        value = parsed(payload)
        if error := _first(self._validator, value):
            raise _refused(error)
        return value

    def json(self, payload: bytes) -> bytes:
        """The value as JSON. Raises BadRecord."""
        return json_bytes(self.read(payload))

    def examine(self, value: Any) -> tuple[Breach | None, BadRecord | None]:
        """(how a value is not of the schema's structure, what else the schema has against it): the first of each."""
        if self._validator.is_valid(value):
            return None, None
        if error := _first(self._structure, value):
            return _breach(error), None
        error = _first(self._validator, value)
        return None, None if error is None else _refused(error)

    def findings(self, value: Any, *, every: bool) -> list[Finding]:
        """Where the value breaks which part of the schema.

        Args:
            every: up to a bound; else the first alone: each that there is costs time and memory, shown or not.
        """
        first = _first(self._validator, value)
        errors: Iterable[jsonschema_rs.ValidationError] = () if first is None else (first,)
        if errors and every:
            errors = self._validator.iter_errors(value)
        return list(islice((one for error in errors for one in _findings(error)), FINDINGS_MOST + 1))


def _validator(schema: Any, parts: Mapping[str, Any]) -> jsonschema_rs.Validator:
    def held(uri: str) -> Any:
        """What a schema refers to: what the registry gave with it, and nothing from elsewhere."""
        name = uri if uri in parts else uri.removeprefix(_BASE)
        if name not in parts:
            raise ValueError(f"{uri} is not among what the registry says that it refers to")
        return parts[name]

    try:
        return jsonschema_rs.validator_for(schema, retriever=held, pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise Rejected(f"no JSON Schema: {str(error)[:_SHOWN_CHARACTERS]}") from error


def _first(validator: jsonschema_rs.Validator, value: Any) -> jsonschema_rs.ValidationError | None:
    """The first error alone: a value may have any number, and each costs more than the value does."""
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return error
    return None


def _refused(error: jsonschema_rs.ValidationError) -> BadRecord:
    at = "/".join(map(str, error.schema_path))
    return BadRecord("schema", f"its schema refuses it ({at}): {error.message[:_SHOWN_CHARACTERS]}")


def parsed(payload: bytes) -> Any:
    """JSON. Raises BadRecord."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord("decode", f"not JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise BadRecord("decode", "nested too deeply; send nested values as text") from error


def _breach(error: jsonschema_rs.ValidationError) -> Breach:
    name, path = error.kind.name, "/".join(map(str, error.schema_path))
    if name == "required":
        missing = str(error.kind.value)
        return Breach(f"{path} {missing}", f"{missing!r} is missing ({path})")
    told = {"type": "is of another type", "additionalProperties": "has properties that it may not have"}
    return Breach(
        path, f"{path.rpartition('/')[0] or 'the value'} {told.get(name, 'is of none of its types')} ({path})"
    )


def _findings(error: jsonschema_rs.ValidationError) -> Iterator[Finding]:
    place, kind = error.instance_path, error.kind
    match kind.name:
        case "required":
            yield finding((*place, kind.value), ABSENT, f"a value ({_part(error)})")
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind.value[: FINDINGS_MOST + 1]:
                yield finding((*place, name), at(error.instance, (name,)), f"no such property ({_part(error)})")
        case _:
            yield finding(place, shown(error.instance), _wanted(error))


def _wanted(error: jsonschema_rs.ValidationError) -> str:
    match error.kind.name:
        case "anyOf" | "oneOf":
            context: list[list[jsonschema_rs.ValidationError]] = getattr(error.kind, "context", [])
            branches = [_wanted(branch[0]) for branch in context[:_BRANCHES_SHOWN] if branch]
            return f"{error.kind.name} of {len(context)}: {' | '.join(branches)}"
        case "propertyNames":
            return f"names of properties: {_wanted(error.kind.value)}"
        case name:
            return f"{name} {shown(error.kind.value)} ({_part(error)})"


def _part(error: jsonschema_rs.ValidationError) -> str:
    """The part of the schema that is broken."""
    return "/".join(map(str, error.schema_path))
