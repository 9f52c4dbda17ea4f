"""Values against JSON Schemas: what breaks the structure, what is one bad value, and that nothing is fetched for it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from actors.connectors.json_values import JsonValues
from cluster.errors import BadRecord, Rejected
from cluster.model import Event
from cluster.streams.schemas import Schema
from tests.registered import json_event

EVENT = {"tenant": "a", "case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": "x", "props": {"n": 1}}


def schema(said: Any, *parts: tuple[str, Any]) -> Schema:
    return Schema(7, "JSON", json.dumps(said), tuple((name, json.dumps(part)) for name, part in parts))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in EVENT.items() if key != name}


@pytest.mark.parametrize(("event", "told"), [
    (without("id"), "'id' is missing"),
    ({**EVENT, "id": 7}, "properties/id is of another type"),
    ({**EVENT, "from": "text"}, "is of none of its types"),
    ({**EVENT, "from": {"type": "person"}}, "is of none of its types"),
    ({**EVENT, "colour": "scarlet"}, "has properties that it may not have"),
    ([], "the value is of another type"),
])  # fmt: skip
def test_another_structure_is_told_without_what_the_record_says(event: Any, told: str) -> None:
    breach, refused = JsonValues(schema(json_event())).examine(event)
    assert refused is None
    assert breach is not None and told in breach.told
    assert "scarlet" not in str(breach)


@pytest.mark.parametrize("event", [
    {**EVENT, "type": "no type"}, {**EVENT, "kind": "thing"}, {**EVENT, "case": ""}, {**EVENT, "epoch": -1},
    {**EVENT, "from": {"type": "person", "id": ""}},
])  # fmt: skip
def test_a_wrong_value_is_one_bad_record(event: Any) -> None:
    values = JsonValues(schema(json_event()))
    breach, refused = values.examine(event)
    assert breach is None
    assert refused is not None and refused.error_class == "schema"
    with pytest.raises(BadRecord, match="its schema refuses it"):
        values.read(json.dumps(event).encode())


def test_a_good_event_passes() -> None:
    values = JsonValues(schema(json_event()))
    assert values.examine(EVENT) == (None, None)
    assert json.loads(values.json(json.dumps(EVENT).encode())) == EVENT
    for payload in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(BadRecord):
            values.read(payload)


def test_our_own_schema_has_all_fields_of_an_event_and_no_others() -> None:
    assert set(json_event()["properties"]) == {field.encode_name for field in msgspec.structs.fields(Event)}
    assert msgspec.json.schema(Event)["$defs"]["Event"]["required"] == sorted(json_event()["required"], key=_at)


def _at(name: str) -> int:
    return [field.encode_name for field in msgspec.structs.fields(Event)].index(name)


def test_a_schema_may_refer_to_what_the_registry_gives_with_it_and_to_nothing_else() -> None:
    said = {"type": "object", "properties": {"a": {"$ref": "other.json"}, "b": {"$ref": "https://x.example/b"}}}
    parts = (("other.json", {"type": "string", "maxLength": 5}), ("https://x.example/b", {"type": "integer"}))
    values = JsonValues(schema(said, *parts))
    assert values.examine({"a": "x", "b": 1}) == (None, None)
    assert values.examine({"a": 1})[0]
    assert values.examine({"a": "x" * 9})[1]
    for absent in ("https://x.example/b", "file:///etc/passwd", "http://127.0.0.1:1/x"):
        with pytest.raises(Rejected, match="is not among"):
            JsonValues(schema({"$ref": absent}))


@pytest.mark.parametrize("said", [
    {"type": "nope"}, {"pattern": "(?=a)b"}, [], "text", {"$ref": "#/definitions/absent"}, {"properties": 5},
])  # fmt: skip
def test_what_is_no_schema_is_refused(said: Any) -> None:
    with pytest.raises(Rejected):
        JsonValues(schema(said))


def nested(levels: int) -> dict[str, Any]:
    return {"properties": {"a": nested(levels - 1)}} if levels else {}


def doubled(times: int) -> dict[str, Any]:
    """Each refers to the next one twice."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(times)}
    return {"$defs": {**twice, f"d{times}": {"type": "object"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(("said", "why"), [
    ({"$ref": "#"}, "contains itself"),
    ({"properties": {"a": {"$ref": "#"}}}, "contains itself"),
    ({"definitions": {"a": {"items": {"$ref": "#/definitions/a"}}}, "$ref": "#/definitions/a"}, "contains itself"),
    ({"properties": {"a": {"$ref": "other"}}}, "contains itself"),
    (doubled(30), "more than 20,000 parts"),
    (nested(70), "deep"),
    ({"$ref": "#anchor"}, "is not among"),
    ({"$dynamicRef": "#x"}, "not followed"),
    ({"properties": {"a": {"$id": "https://x.example/a"}}}, "of its own"),
])  # fmt: skip
def test_schemas_that_could_be_followed_without_end_are_refused(said: Any, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        JsonValues(schema(said, ("other", {"items": {"$ref": "other"}})))


def test_a_schema_may_be_used_in_many_places() -> None:
    used = {"t": {"type": "string"}, "a/b": {"prefixItems": [{"$ref": "#/definitions/t"}]}}
    many = {f"p{n}": {"$ref": "#/definitions/a~1b"} for n in range(50)}
    values = JsonValues(schema({"$id": "x", "definitions": used, "properties": many, "not": {"required": ["id"]}}))
    assert values.examine({"p1": ["x"], "p2": []}) == (None, None)
    assert values.examine({"p1": [5]})[0]


def test_a_pattern_costs_no_more_than_the_text_is_long() -> None:
    values = JsonValues(schema({"type": "string", "pattern": "^(a+)+$"}))
    assert values.examine("a" * 50_000 + "b")[1] is not None


@pytest.mark.timeout(30)
def test_a_record_with_any_number_of_faults_costs_no_more_than_its_first() -> None:
    """To tell all of them would take minutes."""
    item = {"oneOf": [{"type": "string", "minLength": 1}, {"type": "object", "required": ["a"]}]}
    values = JsonValues(schema({"type": "array", "items": item}))
    assert values.examine([5] * 100_000)[0]
    assert values.examine([""] * 100_000)[1]
    with pytest.raises(BadRecord):
        values.read(json.dumps([5] * 100_000).encode())
