"""What differs between two schemas, for who reads by the earlier one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.streams.avro_changes import avro_changes
from cluster.streams.json_changes import json_changes
from cluster.streams.schemas import Schema
from tests.registered import avro_event, json_event, with_field, without_field


def avro(said: Any) -> Schema:
    return Schema(1, "AVRO", json.dumps(said))


def of(*fields: tuple[str, Any], **more: Any) -> Schema:
    return avro({"type": "record", "name": "R", "namespace": "n",
                 "fields": [{"name": name, "type": type, **more} for name, type in fields]})  # fmt: skip


MICROS, MILLIS = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("micros", "millis"))
ENUM = {"type": "enum", "name": "E", "symbols": ["a", "b"]}
FIXED = {"type": "fixed", "name": "F", "size": 4}
INNER = {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}
MORE = {**INNER, "fields": [*INNER["fields"], {"name": "y", "type": "int"}]}


@pytest.mark.parametrize(("was", "now", "told"), [
    (of(("a", "string")), of(), "a is not written"),
    (of(("a", "string")), of(("a", "long")), "a is written as long, and read as string"),
    (of(("a", "long")), of(("a", ["null", "long"])), "a is written as null, and read as long"),
    (of(("a", ["null", "long"])), of(("a", ["null", "long", "string"])), "a may be written as string, which"),
    (of(("a", MICROS)), of(("a", MILLIS)), "a is written as timestamp-millis, and read as timestamp-micros"),
    (of(("a", "long")), of(("a", MILLIS)), "a is written as timestamp-millis, and read as plain"),
    (of(("a", ENUM)), of(("a", {**ENUM, "symbols": ["a", "c"]})), "a may be written as c, which is not read"),
    (of(("a", {"type": "array", "items": INNER})),
     of(("a", {"type": "array", "items": {**INNER, "fields": []}})), "a[].x is not written"),
    (of(("a", ["null", INNER])), of(("a", ["null", {**INNER, "fields": []}])), "a.x is not written"),
    (of(("a", {"type": "map", "values": "int"})), of(("a", {"type": "map", "values": "string"})), "a{} is written as"),
    (of(("a", FIXED)), of(("a", {**FIXED, "size": 8})), "size"),
    (avro("string"), avro("long"), "the value is written as long"),
])  # fmt: skip
def test_what_breaks_a_reader(was: Schema, now: Schema, told: str) -> None:
    found = avro_changes(was, now).breaking
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(("was", "now", "added"), [
    (of(("a", "string")), of(("a", "string"), ("b", ["null", "int"])), ["b"]),
    (of(("a", "string"), default=""), of(), []),
    (of(("a", "long")), of(("a", "int")), []),
    (of(("a", "double")), of(("a", "float")), []),
    (of(("a", ["null", "long"])), of(("a", "long")), []),
    (of(("a", ["null", INNER])), of(("a", MORE)), ["a.y"]),
    (of(("a", ENUM)), of(("a", {**ENUM, "symbols": ["b"]})), []),
    (of(("a", INNER), ("b", "I")), of(("a", INNER), ("b", "n.I")), []),
    (of(("a", {**ENUM, "default": "a"})), of(("a", {**ENUM, "symbols": ["a", "c"]})), []),
])  # fmt: skip
def test_what_a_reader_gets_along_with(was: Schema, now: Schema, added: list[str]) -> None:
    found = avro_changes(was, now)
    assert found.breaking == []
    assert found.added == added


def test_types_that_lead_to_the_same_ones_are_compared_once() -> None:
    last: list[Any] = ["null", {"type": "record", "name": "Z", "fields": [{"name": "z", "type": "int"}]}]
    for n in reversed(range(28)):
        one = {"type": "record", "name": f"A{n}", "fields": [{"name": "f", "type": last}]}
        known = [f"{branch['name']}" if isinstance(branch, dict) else branch for branch in last]
        last = [one, {"type": "record", "name": f"B{n}", "fields": [{"name": "f", "type": known}]}]
    found = avro_changes(of(("a", last)), of(("a", last)))
    assert (found.breaking, found.added) == ([], [])


def test_our_own_event_with_a_field_more_or_less() -> None:
    event = avro_event()
    assert avro_changes(avro(event), avro(event)).breaking == []
    assert avro_changes(avro(event), avro(with_field(event, "colour", ["null", "string"]))).added == ["colour"]
    assert avro_changes(avro(event), avro(without_field(event, "predicate"))).breaking == []
    assert avro_changes(avro(event), avro(without_field(event, "id"))).breaking == [
        "id is not written, and has to be there"
    ]


def js(**changes: Any) -> Schema:
    return Schema(1, "JSON", json.dumps({**json_event(), **changes}))


@pytest.mark.parametrize(("changes", "told"), [
    ({"required": ["case"]}, "id need not be written"),
    ({"properties": {**json_event()["properties"], "id": {"type": "integer"}}}, "id may be written as integer"),
    ({"properties": {**json_event()["properties"], "id": {"type": ["string", "null"]}}}, "id may be written as null"),
    ({"properties": {**json_event()["properties"], "colour": {}}}, "colour may be written, and is not read"),
    ({"properties": {**json_event()["properties"], "id": {}}}, "id may be written as anything"),
])  # fmt: skip
def test_what_breaks_who_reads_by_a_json_schema(changes: dict[str, Any], told: str) -> None:
    assert any(told in reason for reason in json_changes(js(), js(**changes)).breaking)


def test_a_json_schema_may_ask_for_more_and_say_less() -> None:
    open_one = js(additionalProperties=True)
    more = js(additionalProperties=True, required=[*json_event()["required"], "tenant"],
              properties={**json_event()["properties"], "colour": {"type": "string"}})  # fmt: skip
    found = json_changes(open_one, more)
    assert (found.breaking, found.added) == ([], ["colour"])
    assert json_changes(js(), js()).breaking == []


def test_a_fingerprint_is_of_what_a_schema_means_and_a_name_of_what_it_describes() -> None:
    one, other = Schema(1, "AVRO", '{"name":"R", "namespace":"n"}'), Schema(2, "AVRO", '{"namespace":"n","name":"R"}')
    assert one.fingerprint == other.fingerprint != avro("string").fingerprint
    assert (one.name, js().name, avro("string").name) == ("n.R", "org.intelgraph.Event", "")
    assert Schema(1, "AVRO", "not json").name == ""
