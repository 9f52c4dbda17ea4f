"""Schemas as a registry gives them, and as a stream remembers those that it has met."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

SeenState = Literal["pinned", "seen", "former", "refused", "accepted"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one needs, by the name that it uses for it."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True)
class Schema:
    """One schema of a registry; it never changes.

    Args:
        id: the registry's.
        kind: `AVRO` or `JSON`; others (`PROTOBUF`) are not read.
        text: JSON.
        parts: (name, text) of the schemas that it refers to, each after those that it needs itself.
        references: those that it names itself.
    """

    id: int
    kind: str
    text: str
    parts: tuple[tuple[str, str], ...] = ()
    references: tuple[Reference, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal; the same for the same schema under whatever id."""
        said = json.dumps([self.kind, _canonical(self.text), [[n, _canonical(t)] for n, t in self.parts]])
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    @cached_property
    def name(self) -> str:
        """What its versions have in common: the full name of an Avro record, the title of a JSON Schema."""
        found = _loaded(self.text)
        if not isinstance(found, dict):
            return ""
        if self.kind != "AVRO":
            return str(found.get("title", ""))
        name, space = str(found.get("name", "")), str(found.get("namespace") or "")
        return name if "." in name or not space else f"{space}.{name}"


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _canonical(text: str) -> str:
    """The text without what means nothing in JSON."""
    found = _loaded(text)
    return text if found is None else json.dumps(found, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class SeenSchema:
    """A schema that a stream's records were written by, or a way in which plain JSON broke the pinned one.

    Args:
        key: the schema's fingerprint; of a broken schema, what breaks it.
        name: `Schema.name`; of a broken schema, empty.
        schema_id: the registry's; 0 for what breaks one.
        subject, version: where the registry has it; empty and 0 where it did not say.
        state: `pinned`: what others of its name are compared with; `seen`: it fits, and its records are read;
            `former`: it was pinned, and its records are read; `refused`: the stream stopped before its first record;
            `accepted`: of a broken schema: an operator has said to go on.
        note: what is new in it, or what is wrong with it.
        partition, offset: of its first record; partition -1: none was met yet.
        seen: seconds since 1970.
    """

    key: str
    name: str
    schema_id: int
    subject: str
    version: int
    state: SeenState
    note: str
    partition: int
    offset: int
    seen: float
