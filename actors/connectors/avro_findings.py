"""Where bytes are not what an Avro schema writes: read step by step, so that the first place that fails is known.

A reader of Avro follows its schema, since bytes say nothing of fields. So of bytes that another schema wrote the first
place that cannot be is told; what is behind it means nothing. It may stand behind the field that was really changed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import fastavro
from fastavro.read import LOGICAL_READERS

from actors.connectors.findings import FINDINGS_MOST, Finding, finding, shown
from cluster.streams.avro_shape import loaded
from cluster.streams.schemas import Schema

_SHOWN_BYTES, _LONG_BYTES = 8, 10
_NUMBERS = {"float": struct.Struct("<f"), "double": struct.Struct("<d")}
_UNREADABLE = (ArithmeticError, LookupError, ValueError, TypeError)
Place = tuple[str | int, ...]


class _Broken(Exception):
    """Nothing behind this place can be read."""

    def __init__(self, found: Finding) -> None:
        super().__init__()
        self.found = found


def avro_findings(schema: Schema, payload: bytes) -> list[Finding]:
    """What is wrong with bytes of a schema that is read (`AvroValues`); nothing where it wrote them."""
    names: dict[str, Any] = {}
    for _, text in schema.parts:
        fastavro.parse_schema(loaded(text), named_schemas=names)
    parsed = fastavro.parse_schema(loaded(schema.text), named_schemas=names)
    steps = _Steps(payload, names)
    try:
        steps.value(parsed, ())
    except _Broken as error:
        return [*steps.found, error.found]
    if steps.left:
        steps.found.append(finding((), steps.here(), f"nothing more: {steps.left:,} bytes are behind the record"))
    return steps.found


class _Steps:
    """Bytes, and how far they were read.

    Args:
        names: full name → named type.
    """

    def __init__(self, payload: bytes, names: Mapping[str, Any]) -> None:
        self._payload, self._names, self._at = payload, names, 0
        self.found: list[Finding] = []

    @property
    def left(self) -> int:
        """Bytes that were not read."""
        return len(self._payload) - self._at

    def here(self) -> str:
        """The next bytes, as text."""
        after = self._payload[self._at : self._at + _SHOWN_BYTES].hex(" ")
        return f"byte {self._at:,}: {after + ' …' if self.left > _SHOWN_BYTES else after or 'the end'}"

    def value(self, schema: Any, place: Place) -> Any:
        """Reads one value; returns it where it is no record, list or map. Raises _Broken."""
        if isinstance(schema, list):
            named = ", ".join(_name(one) for one in schema)
            number = self._number(place, f"which of {named} follows", len(schema))
            return self.value(schema[number], place)
        if isinstance(schema, str):
            return self.value(self._names[schema], place) if schema in self._names else self._plain(schema, {}, place)
        match kind := schema["type"]:
            case "record" | "error":
                for field in schema["fields"]:
                    self.value(field["type"], (*place, field["name"]))
            case "array":
                for number in self._blocks(place):
                    self.value(schema["items"], (*place, number))
            case "map":
                for _ in self._blocks(place):
                    name = self._plain("string", {}, place)
                    self.value(schema["values"], (*place, str(name)))
            case str() if kind not in self._names:
                return self._plain(kind, schema, place)
            case _:
                return self.value(kind, place)
        return None

    def _blocks(self, place: Place) -> Iterator[int]:
        """The numbers of the items, each before it is read."""
        done = 0
        while count := self._long(place, "how many items follow"):
            if count < 0:
                self._long(place, "how many bytes the items have")
            for _ in range(abs(count)):
                yield done
                done += 1

    def _plain(self, kind: str, schema: Mapping[str, Any], place: Place) -> Any:
        began = self.here()
        value = self._simple(kind, schema, place)
        if isinstance(value, float) and not math.isfinite(value) and len(self.found) < FINDINGS_MOST:
            self.found.append(finding(place, str(value), "a finite number: JSON has no others"))
        if (logical := schema.get("logicalType")) and (read := LOGICAL_READERS.get(f"{kind}-{logical}")):
            try:
                read(value, dict(schema), None)
            except _UNREADABLE as error:
                self._broken(place, f"{logical}: {error}", f"{shown(value)} at {began}")
        return value

    def _simple(self, kind: str, schema: Mapping[str, Any], place: Place) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                began, value = self.here(), self._bytes(1, place, "boolean: one byte, 0 or 1")[0]
                return bool(value) if value < 2 else self._broken(place, "boolean: one byte, 0 or 1", began)
            case "int" | "long":
                return self._long(place, kind)
            case "float" | "double":
                form = _NUMBERS[kind]
                return form.unpack(self._bytes(form.size, place, f"{kind}: {form.size} bytes"))[0]
            case "enum":
                return schema["symbols"][self._number(place, "the number of a symbol", len(schema["symbols"]))]
            case "fixed":
                return self._bytes(schema["size"], place, f"{schema['size']:,} bytes")
            case _:
                return self._text(kind, place)

    def _text(self, kind: str, place: Place) -> Any:
        began = self.here()
        length = self._long(place, f"{kind}: its length, then its bytes")
        if length < 0:
            self._broken(place, f"{kind}: its length, then its bytes", f"length {length:,} at {began}")
        data = self._bytes(length, place, f"{kind} of {length:,} bytes, by its length at {began}")
        if kind != "string":
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            return self._broken(place, "string in UTF-8", f"byte {self._at - length + error.start:,}: {error.reason}")

    def _number(self, place: Place, wants: str, below: int) -> int:
        began, number = self.here(), self._long(place, wants)
        if not 0 <= number < below:
            self._broken(place, f"{wants}: a number from 0 to {below - 1}", f"{number:,} at {began}")
        return number

    def _long(self, place: Place, wants: str) -> int:
        found = 0
        for shift in range(_LONG_BYTES):
            byte = self._bytes(1, place, wants)[0]
            found |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return (found >> 1) ^ -(found & 1)
        return self._broken(place, f"{wants}: a number of up to {_LONG_BYTES} bytes", f"more, before {self.here()}")

    def _bytes(self, count: int, place: Place, wants: str) -> bytes:
        if count > self.left:
            self._broken(place, wants, f"{self.here()} ({self.left:,} bytes are left)")
        self._at += count
        return self._payload[self._at - count : self._at]

    def _broken(self, place: Place, wants: str, found: str) -> NoReturn:
        raise _Broken(finding(place, found, wants))


def _name(schema: Any) -> str:
    if isinstance(schema, dict):
        return str(schema.get("name", schema["type"]))
    return "a choice" if isinstance(schema, list) else str(schema)
