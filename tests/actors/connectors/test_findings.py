"""Findings are short and inert, whatever a record holds."""

from __future__ import annotations

import json

from actors.connectors.findings import FINDINGS_MOST, at, finding, shown
from actors.connectors.json_values import JsonValues
from cluster.streams.schemas import Schema

NO_NULL, NO_TYPE = 'type ["null"] (properties/to/oneOf/0/type)', 'required "type" (properties/to/oneOf/1/required)'
NASTY = "\x1b]0;owned\x07\x9b31m‮" + "x" * 100_000


def values(schema: object) -> JsonValues:
    return JsonValues(Schema(7, "JSON", json.dumps(schema)))


def test_text_of_a_record_drives_no_terminal_and_fills_no_page() -> None:
    for one in (finding([NASTY, NASTY] * 500, NASTY, NASTY), finding([], shown(NASTY), shown({"a": [NASTY]}))):
        for text in one:
            assert len(text) <= 300
            assert all(c.isprintable() for c in text)
    assert len(shown(["x" * 1_000_000] * 1_000)) < 100


def test_a_path_is_a_json_pointer() -> None:
    assert finding(("props", "a/b~c", 3), "", "").path == "/props/a~1b~0c/3"


def test_what_is_at_a_place_is_shown_and_what_is_not_is_nothing() -> None:
    value = {"a": [{"b": "c"}]}
    assert at(value, ("a", 0, "b")) == '"c"'
    assert [at(value, place) for place in (("x",), ("a", 1), ("a", "b"), ("a", 0, "b", "c"))] == ["nothing"] * 4


def test_each_part_of_the_schema_that_is_broken_is_told_with_what_is_there() -> None:
    held = values({
        "type": "object", "required": ["id", "mail"], "additionalProperties": False, "propertyNames": {"maxLength": 9},
        "properties": {"id": {"type": "integer"}, "mail": {"pattern": "@"}, "age": {"minimum": 0},
                       "kind": {"enum": ["a"]},
                       "to": {"oneOf": [{"type": "null"}, {"type": "object", "required": ["type"]}]}},
    })  # fmt: skip
    found = held.findings({"id": "7", "age": -1, "kind": "b", "to": {}, "colour": "red"}, every=True)
    assert sorted(found) == [
        ("/age", "-1", "minimum 0 (properties/age/minimum)"),
        ("/colour", '"red"', "no such property (additionalProperties)"),
        ("/id", '"7"', 'type ["integer"] (properties/id/type)'),
        ("/kind", '"b"', 'enum ["a"] (properties/kind/enum)'),
        ("/mail", "nothing", "a value (required)"),
        ("/to", "{}", f"oneOf of 2: {NO_NULL} | {NO_TYPE}"),
    ]  # fmt: skip
    assert held.findings({"id": 7, "mail": "a@b"}, every=True) == []
    assert len(held.findings({"id": "7", "age": -1}, every=False)) == 1


def test_their_number_is_bounded() -> None:
    held = values({"type": "object", "additionalProperties": False, "properties": {"a": {"items": {"type": "string"}}}})
    assert len(held.findings({"a": [1] * 10_000}, every=True)) == FINDINGS_MOST + 1
    assert len(held.findings({str(n): 1 for n in range(10_000)}, every=True)) == FINDINGS_MOST + 1
    assert len(held.findings({"a": [1] * 10_000, "b": 1}, every=False)) == 1
