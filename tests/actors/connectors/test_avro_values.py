"""Values that Avro schemas describe, as JSON: what our own formats say, and nothing that bytes make endless."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connectors.avro_values import AvroValues
from actors.connectors.schema_values import event_of, values_of, wire
from cluster.errors import BadRecord, Rejected
from cluster.model import Event
from cluster.streams.schemas import Schema
from tests.registered import avro_event, wired, without_field


def schema(said: Any, *parts: tuple[str, Any]) -> Schema:
    return Schema(7, "AVRO", json.dumps(said), tuple((name, json.dumps(part)) for name, part in parts))


def record(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": one} for n, one in enumerate(fields)]}


def written(said: Any, value: Any) -> bytes:
    file = BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(said), value)
    return file.getvalue()


def through(said: Any, value: Any) -> Any:
    return json.loads(AvroValues(schema(said)).json(written(said, value)))


NANOS = {"type": "long", "logicalType": "timestamp-nanos"}
AT = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(("kind", "value", "wanted"), [
    ({"type": "long", "logicalType": "timestamp-micros"}, AT, "2026-03-01T09:00:00.123456Z"),
    ({"type": "long", "logicalType": "timestamp-millis"}, AT, "2026-03-01T09:00:00.123000Z"),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, AT.replace(tzinfo=None), "2026-03-01T09:00:00.123456Z"),
    (NANOS, 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
    (NANOS, -1, "1969-12-31T23:59:59.999999999Z"),
    ({"type": "int", "logicalType": "date"}, date(2026, 3, 1), "2026-03-01"),
    ({"type": "long", "logicalType": "time-micros"}, time(9, 5), "09:05:00"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 9}, Decimal("0.000000001"), "0.000000001"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("-12.50"), "-12.50"),
    ({"type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 1}, Decimal("2.5"),
     "2.5"),
    ({"type": "string", "logicalType": "uuid"}, UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ("bytes", b"\xff\x00a", "/wBh"),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
    (["null", "string"], None, None),
    ({"type": "map", "values": ["long", {"type": "array", "items": "string"}]}, {"a": 2**62, "b": ["x"]},
     {"a": 2**62, "b": ["x"]}),
])  # fmt: skip
def test_values_come_out_as_our_json_formats_have_them(kind: Any, value: Any, wanted: Any) -> None:
    if kind is NANOS:
        assert json.loads(AvroValues(schema(record(kind))).json(written("long", value))) == {"f0": wanted}
    else:
        assert through(record(kind), {"f0": value}) == {"f0": wanted}


def test_what_no_json_has_is_refused() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(BadRecord, match="NaN"):
            through(
                record({"type": "map", "values": {"type": "array", "items": "double"}}), {"f0": {"a": [1.0, value]}}
            )


GOOD = record(
    "long", "string", {"type": "array", "items": "string"}, {"type": "string", "logicalType": "uuid"}, name="Good"
)
VALUE = {"f0": 5, "f1": "abc", "f2": ["x", "y"], "f3": UUID(int=3)}


@given(st.binary(max_size=60))
def test_whatever_bytes_come_they_are_a_value_or_a_bad_record(payload: bytes) -> None:
    values = AvroValues(schema(record(GOOD, {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
                                      {"type": "int", "logicalType": "date"}, NANOS, ["null", "double"])))  # fmt: skip
    with suppress(BadRecord):
        json.loads(values.json(payload))


def test_a_record_of_another_schema_is_a_bad_record() -> None:
    values, good = AvroValues(schema(GOOD)), written(GOOD, VALUE)
    assert values.read(good)["f1"] == "abc"
    for bad in (good[:-1], good + b"x", b"", b"\xff" * 30):
        with pytest.raises(BadRecord):
            values.read(bad)


def deep(levels: int) -> Any:
    return "int" if not levels else {"type": "array", "items": deep(levels - 1)}


def doubled(times: int) -> dict[str, Any]:
    """Each type holds the next one twice: values of any size, from no bytes."""
    last: Any = record("null", name=f"R{times}")
    for n in reversed(range(times)):
        last = record(last, f"R{n + 1}", name=f"R{n}")
    return last


@pytest.mark.parametrize(("said", "why"), [
    (record(["null", "R"]), "contains itself"),
    (record(record(["null", "R"], name="Inner")), "contains itself"),
    (record({"type": "array", "items": "null"}), "take no bytes"),
    (record({"type": "array", "items": record("null", name="Void")}), "take no bytes"),
    (record({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "take no bytes"),
    (doubled(20), "deep, or of over"),
    (record(deep(70)), "deep"),
    (record("Absent"), "does not have"),
    ({"type": "recrd"}, "does not have"),
    ([1], "no type"),
    ({"type": "record", "name": "R"}, "no fields"),
    ({"type": "enum", "name": "E"}, "no Avro schema"),
])  # fmt: skip
def test_schemas_whose_values_have_no_bound_are_refused_before_any_is_read(said: Any, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        AvroValues(schema(said))


def test_a_schema_may_refer_to_others() -> None:
    inner = {**record("string", name="Inner"), "namespace": "x"}
    outer = {**record("Inner", ["null", "x.Inner"], name="Outer"), "namespace": "x"}
    values = AvroValues(schema(outer, ("x.Inner", inner)))
    assert values.read(b"\x02a\x02\x02b") == {"f0": {"f0": "a"}, "f1": {"f0": "b"}}


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\1x", b'{"a":1}'])
def test_what_names_no_schema_is_a_bad_record(value: bytes) -> None:
    with pytest.raises(BadRecord, match="names no schema"):
        wire(value)
    assert wire(wired(258, b"ab")) == (258, b"ab")


def test_schemas_of_other_types_are_not_read() -> None:
    with pytest.raises(Rejected, match="PROTOBUF are not read"):
        values_of(Schema(1, "PROTOBUF", "syntax"))


# --- events

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)
_ref = st.none() | st.fixed_dictionaries({"type": _text, "id": _text})
_number = st.integers(-(2**63), 2**63 - 1)
_scalar = st.booleans() | _number | st.floats(allow_nan=False, allow_infinity=False) | _text
_value = st.none() | _scalar | st.lists(_text, max_size=3)
EVENTS = st.fixed_dictionaries({
    "tenant": st.none() | _text, "case": _text, "kind": st.sampled_from(["entity", "relationship", "claim"]),
    "op": st.sampled_from(["upsert", "delete"]), "type": _text, "id": _text, "from": _ref, "to": _ref,
    "subject": _ref, "predicate": st.none() | _text, "value": _value,
    "confidence": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "props": st.none() | st.dictionaries(_text, _value, max_size=4), "source": st.none() | _text,
    "epoch": st.none() | st.integers(0, 2**63 - 1), "partition": st.none() | _number | _text,
    "position": st.none() | _number | st.lists(_number, min_size=1, max_size=8),
    "event_time": st.none() | st.datetimes(AT.replace(year=1971, tzinfo=None), timezones=st.just(UTC)),
})  # fmt: skip


@given(EVENTS)
def test_an_event_by_our_own_schema_is_the_event(event: dict[str, Any]) -> None:
    values = AvroValues(schema(avro_event()))
    found = json.loads(msgspec.json.encode(event_of(values.read(written(avro_event(), event)))))
    assert msgspec.convert(found, Event)
    at = found.pop("event_time", None)
    if event["event_time"] is not None:
        assert abs(datetime.fromisoformat(at) - event["event_time"]) < timedelta(microseconds=2)
    assert found == {name: value for name, value in event.items() if value is not None and name != "event_time"}


def test_our_own_schema_has_all_fields_of_an_event_and_no_others() -> None:
    assert {one["name"] for one in avro_event()["fields"]} == {f.encode_name for f in msgspec.structs.fields(Event)}


def test_what_no_event_has_is_left_out_and_what_it_must_have_is_missed_later() -> None:
    assert event_of({"id": "a", "colour": "red", "tenant": None}) == {"id": "a"}
    with pytest.raises(BadRecord, match="record with fields"):
        event_of("text")
    assert AvroValues(schema(without_field(avro_event(), "id")))
