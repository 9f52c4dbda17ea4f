"""Where bytes are not what an Avro schema writes: the field at which they cannot be."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connectors.avro_findings import avro_findings
from actors.connectors.avro_values import AvroValues
from actors.connectors.findings import FINDINGS_MOST
from cluster.errors import BadRecord
from cluster.streams.schemas import Schema
from tests.registered import avro_event

EVENT = {"tenant": "acme", "case": "c1", "kind": "entity", "op": "upsert", "type": "person", "id": "a", "props": {}}
MIXED = {"type": "record", "name": "R", "namespace": "n", "fields": [
    {"name": "who", "type": {"type": "record", "name": "P", "fields": [{"name": "mail", "type": "string"}]}},
    {"name": "also", "type": ["null", "P"]},
    {"name": "marks", "type": {"type": "array", "items": "double"}},
    {"name": "by", "type": {"type": "map", "values": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "hash", "type": {"type": "fixed", "name": "F", "size": 2}},
    {"name": "sure", "type": "boolean"},
]}  # fmt: skip
VALUE = {"who": {"mail": "m"}, "also": {"mail": "x"}, "marks": [0.5, 1.5], "by": {"k": "B"}, "day": 3, "hash": b"ab",
         "sure": True}  # fmt: skip


def schema(said: Any) -> Schema:
    return Schema(7, "AVRO", json.dumps(said))


def written(said: Any, value: Any) -> bytes:
    file = BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(said), value)
    return file.getvalue()


WHOLE = written(MIXED, VALUE)


@pytest.mark.parametrize(
    ("payload", "path", "wants", "found"),
    [
        (b"", "/who/mail", "string", "byte 0: the end"),
        (b"\x02m\x09", "/also", "which of null, n.P follows: a number from 0 to 1", "-5 at byte 2: 09"),
        (WHOLE[:9], "/marks/0", "double: 8 bytes", "3 bytes are left"),
        (b"\x02\xffx", "/who/mail", "string in UTF-8", "byte 1: invalid start byte"),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "/who/mail", "a number of up to 10 bytes", "more"),
        (WHOLE.replace(b"\x02k\x02", b"\x02k\x08"), "/by/k", "a symbol: a number from 0 to 1", "4 at"),
        (WHOLE[:-1] + b"\x07", "/sure", "boolean: one byte, 0 or 1", "07"),
        (WHOLE + b"zz", "", "2 bytes are behind the record", "7a 7a"),
        (b"\x02m\x00\x00\x00\xfe\xff\xff\xff\x0fab\x01", "/day", "date", "2147483647"),
    ],
)  # fmt: skip
def test_the_place_that_cannot_be_is_told(payload: bytes, path: str, wants: str, found: str) -> None:
    (one,) = avro_findings(schema(MIXED), payload)
    assert one.path == path
    assert wants in one.wants
    assert found in one.found


def test_what_json_does_not_have_is_told_wherever_it_stands() -> None:
    payload = written(MIXED, {**VALUE, "marks": [0.5, float("nan"), float("inf")]})
    assert [one.path for one in avro_findings(schema(MIXED), payload)] == ["/marks/1", "/marks/2"]
    endless = written(MIXED, {**VALUE, "marks": [float("nan")] * 1000})
    assert len(avro_findings(schema(MIXED), endless)) == FINDINGS_MOST


def test_what_its_schema_wrote_is_right() -> None:
    assert avro_findings(schema(MIXED), WHOLE) == []
    assert avro_findings(schema(avro_event()), written(avro_event(), EVENT)) == []


@given(st.binary(max_size=60), st.integers(0, len(WHOLE)))
def test_any_bytes_that_are_refused_have_a_place(tail: bytes, kept: int) -> None:
    payload = WHOLE[:kept] + tail
    try:
        AvroValues(schema(MIXED)).read(payload)
    except BadRecord:
        assert avro_findings(schema(MIXED), payload)
