"""Events of one case in the stable format, numbered in order; and files of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

Event = dict[str, Any]
End = tuple[str, str]
"""The (type, id) of an entity."""
_ID_CHARS = 1_024


@dataclass
class CaseFacts:
    """Entities and relationships of one case, each key once; the first facts about a key stay, later ones add."""

    tenant: str
    case: str
    source: str
    _entities: dict[End, dict[str, Any]] = field(default_factory=dict)
    _relationships: dict[End, Event] = field(default_factory=dict)

    def entity(self, kind: str, identity: str, **props: Any) -> End:
        """State an entity; returns its (type, id) as an end of relationships. Absent values are left out."""
        key = kind, bounded_id(identity)
        known = self._entities.setdefault(key, {})
        for name, value in props.items():
            if value not in (None, "", []) and name not in known:
                known[name] = value
        return key

    def relationship(self, kind: str, start: End, end: End, mark: str = "", **props: Any) -> None:
        """State a relationship; its id is made of its ends, and of `mark` where the same ends have several."""
        identity = bounded_id(f"{start[0]}:{start[1]} {kind} {end[0]}:{end[1]}{' ' + mark if mark else ''}")
        event: Event = {"from": {"type": start[0], "id": start[1]}, "to": {"type": end[0], "id": end[1]}}
        found = {name: value for name, value in props.items() if value not in (None, "", [])}
        self._relationships.setdefault((kind, identity), {**event, "props": found} if found else event)

    def events(self) -> Iterator[Event]:
        """Entities, then relationships, in the order in which they were stated; positions come later."""
        base = {"tenant": self.tenant, "case": self.case, "source": self.source, "op": "upsert"}
        for (kind, identity), props in self._entities.items():
            event = {**base, "kind": "entity", "type": kind, "id": identity}
            yield {**event, "props": props} if props else event
        for (kind, identity), rest in self._relationships.items():
            yield {**base, "kind": "relationship", "type": kind, "id": identity, **rest}


def bounded_id(text: str) -> str:
    """`text` where an id may be so long, else its beginning and a hash of all of it."""
    if len(text) <= _ID_CHARS:
        return text
    return f"{text[: _ID_CHARS - 65]}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def numbered(events: Iterable[Event]) -> Iterator[Event]:
    """Give the events their positions, from 1."""
    for position, event in enumerate(events, 1):
        event["position"] = position
        yield event


class Written(NamedTuple):
    """A finished file: events by (kind, type), their number, the file's bytes and digest."""

    path: Path
    counts: dict[End, int]
    events: int
    bytes: int
    digest: str


def write_events(events: Iterable[Event], path: Path) -> Written:
    """Write JSON lines beside `path`, fsync, rename: a reader sees the old file or the new one. Safe to repeat.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is then as it was.
    """
    counts: Counter[End] = Counter()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    encoder, digest, lines = msgspec.json.Encoder(), hashlib.sha256(), bytearray()
    try:
        with aside.open("wb") as opened:
            for event in events:
                counts[event["kind"], event["type"]] += 1
                lines += encoder.encode(event) + b"\n"
                if len(lines) >= 1 << 20:
                    digest.update(lines)
                    opened.write(lines)
                    lines.clear()
            digest.update(lines)
            opened.write(lines)
            opened.flush()
            os.fsync(opened.fileno())
            size = opened.tell()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return Written(path, dict(sorted(counts.items())), counts.total(), size, digest.hexdigest())


def content_digest(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file of events: equal facts, equal digest."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
