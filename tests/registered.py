"""Schemas of tests in a real registry, and records as serialisers of a registry write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import httpx

from cluster.config_registry import RegistrySettings
from cluster.stores.schema_registry import SchemaRegistry
from services.spec import Running

SCHEMAS = Path(__file__).resolve().parents[1] / "configs" / "schemas"


def avro_event() -> dict[str, Any]:
    """Our own event as an Avro schema."""
    found: dict[str, Any] = json.loads((SCHEMAS / "event.v1.avsc").read_text())
    return found


def json_event() -> dict[str, Any]:
    """Our own event as a JSON Schema."""
    found: dict[str, Any] = json.loads((SCHEMAS / "event.v1.json").read_text())
    return found


def with_field(schema: Mapping[str, Any], name: str, type: Any, **more: Any) -> dict[str, Any]:
    """An Avro record with one more field."""
    return {**schema, "fields": [*schema["fields"], {"name": name, "type": type, **more}]}


def without_field(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An Avro record with one field less."""
    return {**schema, "fields": [one for one in schema["fields"] if one["name"] != name]}


def wired(number: int, payload: bytes) -> bytes:
    """A value that names its schema."""
    return b"\0" + number.to_bytes(4) + payload


class Registered:
    """What other programs do with a registry, and records by what they registered."""

    def __init__(self, server: Running) -> None:
        self.settings = RegistrySettings(url=server.address)
        self.registry = SchemaRegistry(self.settings)

    def rule(self, subject: str, level: str) -> None:
        """How a subject's versions have to fit, from now on."""
        httpx.put(f"{self.settings.url}/config/{subject}", json={"compatibility": level}).raise_for_status()

    def add(self, subject: str, schema: Any, kind: str = "AVRO") -> int:
        """Registers a version; its number."""
        return self.registry.register(subject, kind, json.dumps(schema))

    def avro(self, number: int, record: Any) -> bytes:
        """A record by the schema of that number."""
        found = json.loads(self.registry.schema(number).text)
        file = BytesIO()
        fastavro.schemaless_writer(file, fastavro.parse_schema(found), record)
        return wired(number, file.getvalue())

    def close(self) -> None:
        self.registry.close()


def opened(server: Running) -> Iterator[Registered]:
    """For a fixture."""
    made = Registered(server)
    yield made
    made.close()
