"""STIX 2.1 bundles (OASIS, https://docs.oasis-open.org/cti/stix/v2.1/): each object becomes one or more events.

- Every object but a `relationship` is an entity: its type and id are STIX's, its properties the event's (nested
  ones become canonical JSON text later on).
- A `relationship` object is a relationship: its type is `relationship_type`, its id the object's; the ends' types
  are the prefixes of the references.
- References inside an entity (`created_by_ref`, `object_marking_refs`, every property that ends in `_ref` or `_refs`
  and holds STIX ids) are relationships too, of the property's name without that ending. One of `_ref` has the id
  `<object id>:<name>`, so that a newer bundle moves its end; one of `_refs` `<object id>:<name>:<referenced id>`.
  A relationship object keeps its references as properties: an end has to be an entity.
- A `sighting` has any number of observers, so it is an entity as well, with relationships `sighting_of`,
  `where_sighted` and `observed_data`; nothing of it is lost.
- `revoked: true` is a property and no deletion: a revoked object stays visible as revoked, as STIX means it. An
  object that a later bundle lacks stays too: bundles are seldom complete. Who knows that one is ends the older
  load with a floor.
- `modified` (else `created`) is the event's time: it informs, and never orders. The order is that of the bundle:
  position = (index of the object from 1, number of the event within it from 1).
- `id`, `type` and what makes a relationship's key and ends are not repeated as properties; other names that events
  reserve (`tenant`, `case`, a leading `_`) get the prefix `stix_`.

The file is read whole, within `FileLimits.file_bytes`; objects are decoded one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from actors.connectors.base import FileSource, Item, Position, RawRecord, bad_raw, batched, behind, json_bytes
from actors.connectors.input_file import InputFile, Progress
from cluster.errors import BadRecord, Rejected

_ID = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,63})--[0-9A-Fa-f-]{36}")
_KEY_FIELDS = {"id", "type"}
_RELATIONSHIP_FIELDS = _KEY_FIELDS | {"relationship_type", "source_ref", "target_ref"}
_object = msgspec.json.Decoder(dict[str, Any])


class _Bundle(msgspec.Struct):
    """A bundle whose objects are left as bytes."""

    type: str
    objects: list[msgspec.Raw] = []


@dataclass
class StixBundle:
    """The objects of one bundle."""

    file: InputFile
    settings: bytes
    defaults: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def digest(self) -> str:
        return self.file.sha256(self.settings)

    @property
    def row_form(self) -> Mapping[str, Any]:
        """An object says everything itself."""
        return {"format": "stix"}

    @property
    def total_bytes(self) -> int:
        return self.file.size

    def progress_bytes(self) -> int:
        return self.progress.done_bytes

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        yield from batched(behind(self._items(after[0] if after else 1), after), limit_records, limit_bytes)
        self.file.check_unchanged()

    def split(self, parts: int) -> Sequence[FileSource]:
        """One part: the file has to be read whole."""
        return [self]

    def _items(self, first: int) -> Iterator[Item]:
        reading = Progress()
        objects = _objects(self.file, reading)
        for index, raw in enumerate(objects, 1):
            if index >= first:
                yield from self._object_items(index, bytes(raw))
            self.progress.done_bytes = self.file.size * index // len(objects)

    def _object_items(self, index: int, raw: bytes) -> Iterator[Item]:
        try:
            yield from object_records(index, raw, self.defaults)
        except BadRecord as error:
            yield bad_raw((index,), raw, self.file.limits, error.error_class, f"object {index:,}: {error.reason}")


def object_records(index: int, raw: bytes, defaults: Mapping[str, Any]) -> list[RawRecord]:
    """The records of one object of a bundle.

    Raises:
        BadRecord: it is no STIX object.
    """
    try:
        found = events_of(_object.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("decode", f"no JSON object: {error}") from error
    return [RawRecord((index, number), json_bytes({**defaults, **event})) for number, event in enumerate(found, 1)]


def open_stix(file: InputFile, settings: bytes, defaults: Mapping[str, Any]) -> StixBundle:
    """Look whether the file can be a bundle at all; it is read when `batches` begins.

    Raises:
        Rejected: it is larger than `FileLimits.file_bytes`.
    """
    if file.size > file.limits.file_bytes:
        limit = f"the limit is {file.limits.file_bytes:,}"
        raise Rejected(f"{file.path} has {file.size:,} bytes; {limit}: split the bundle")
    return StixBundle(file, settings, defaults)


def _objects(file: InputFile, progress: Progress) -> list[msgspec.Raw]:
    try:
        bundle = msgspec.json.decode(file.read_whole(progress), type=_Bundle)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected(f"{file.path} is no STIX bundle: {error}") from error
    if bundle.type != "bundle":
        raise Rejected(f"{file.path} is no STIX bundle: its type is {bundle.type[:80]!r}")
    return bundle.objects


def events_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of one STIX object, without tenant, case and source.

    Raises:
        BadRecord: type or id is missing, or a relationship lacks its type or an end.
    """
    kind, identity = _text(found, "type"), _text(found, "id")
    time = found.get("modified", found.get("created"))
    informed = {"op": "upsert", **({"event_time": time} if isinstance(time, str) else {})}
    if kind == "relationship":
        return [{**_relationship(found, identity), **informed}]
    references = list(_references(found, identity, kind))
    used = {name for name, _ in references}
    entity = {"kind": "entity", "type": kind, "id": identity, **informed}
    return [_with_props(entity, found, _KEY_FIELDS | used), *({**event, **informed} for _, event in references)]


def _relationship(found: Mapping[str, Any], identity: str) -> dict[str, Any]:
    ends = {"from": _end(_text(found, "source_ref")), "to": _end(_text(found, "target_ref"))}
    event = {"kind": "relationship", "type": _text(found, "relationship_type"), "id": identity, **ends}
    return _with_props(event, found, _RELATIONSHIP_FIELDS)


def _references(found: Mapping[str, Any], identity: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(property, relationship) of every reference at the object's top level."""
    for name, value in found.items():
        single, several = name.endswith("_ref"), name.endswith("_refs")
        targets = [value] if single else value if several and isinstance(value, list) else []
        if not targets or not all(isinstance(target, str) and _ID.fullmatch(target) for target in targets):
            continue
        short = name.removesuffix("_refs" if several else "_ref")
        for target in dict.fromkeys(targets):
            identifier = f"{identity}:{short}:{target}" if several else f"{identity}:{short}"
            ends = {"from": {"type": kind, "id": identity}, "to": _end(target)}
            yield name, {"kind": "relationship", "type": short, "id": identifier, **ends}


def _end(reference: str) -> dict[str, str]:
    match = _ID.fullmatch(reference)
    if match is None:
        raise BadRecord("schema", f"{reference[:120]!r} is no STIX id (type--uuid)")
    return {"type": match[1], "id": reference}


def _with_props(event: dict[str, Any], found: Mapping[str, Any], left_out: set[str]) -> dict[str, Any]:
    props = {_property_name(name): value for name, value in found.items() if name not in left_out and value is not None}
    return {**event, "props": props} if props else event


def _property_name(name: str) -> str:
    return f"stix_{name}" if name in ("id", "tenant", "case") or name.startswith("_") else name


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise BadRecord("schema", f"{name!r} is missing or no text")
    return value
