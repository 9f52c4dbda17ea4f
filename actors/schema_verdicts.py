"""Whether a schema that a stream has not met fits what is pinned: by our own rule, and by the registry's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actors.connectors.schema_values import EVENT_FIELDS, changes_between, differences, record_of
from cluster.errors import NotFound, Rejected, Unavailable
from cluster.stores.schema_registry import SchemaRegistry
from cluster.streams.avro_changes import Changes
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import Schema, SeenSchema

_NAMED_MOST = 10


class Verdicts:
    """Judges schemas of one stream.

    Args:
        known: what the stream has met.
    """

    def __init__(self, registry: SchemaRegistry, spec: StreamSpec, known: Sequence[SeenSchema]) -> None:
        self._registry, self._spec = registry, spec
        self._known = [seen for seen in known if seen.schema_id and seen.state != "refused"]

    def of(self, schema: Schema) -> SeenSchema:
        """The schema with its state: `pinned`, `seen` or `refused`, and why. Raises Unavailable."""
        places = self._places(schema.id)
        placed, version = max(places, key=lambda place: (place[0] == self._spec.subject, place[1]), default=("", 0))
        seen = SeenSchema(schema.fingerprint, schema.name, schema.id, placed, version, "refused", "", 0, 0, 0.0)
        if reason := self._unread(schema, placed, version):
            return replace(seen, note=reason)
        if reused := [one for one in self._known if one.schema_id == schema.id]:
            return replace(seen, note=f"was another schema when it was met first ({reused[0].name}): the registry"
                         " is not the one that it was")  # fmt: skip
        mine = [one for one in self._known if one.name == schema.name and one.state in ("pinned", "seen")]
        if not mine:
            others = sorted({one.name for one in self._known})
            told = f"describes {schema.name or 'records without a name'}; the topic held {', '.join(others)}"
            return replace(seen, note=told) if others else replace(seen, state="pinned")
        found = self._changes(schema, mine)
        found.breaking += [] if found.breaking else self._registrys(schema, mine, places)
        if found.breaking:
            return replace(seen, note=f"breaks what is pinned: {_listed(found.breaking)}")
        return replace(seen, state="seen", note=_new(found))

    def _changes(self, schema: Schema, mine: Sequence[SeenSchema]) -> Changes:
        """Against the pinned one and all that were found to fit it."""
        whole = Changes()
        for one in mine:
            try:
                found = changes_between(self._registry.schema(one.schema_id), schema)
            except NotFound as error:
                raise Unavailable(
                    f"the schema registry no longer has schema {one.schema_id}, which is pinned"
                ) from error
            except Rejected as error:
                found = Changes([f"schema {one.schema_id} cannot be compared: {error.reason}"])
            whole.breaking += [told for told in found.breaking if told not in whole.breaking]
            whole.added = found.added if one is mine[0] else [name for name in whole.added if name in found.added]
        return whole

    def _registrys(self, schema: Schema, mine: Sequence[SeenSchema], places: Sequence[tuple[str, int]]) -> list[str]:
        """What the registry has against it, by its own rule for the subject of the pinned one; earlier versions, which
        the pinned one was held against, are not asked about."""
        pin = next((one for one in mine if one.state == "pinned" and one.version), None)
        if pin is None or any(subject == pin.subject and version < pin.version for subject, version in places):
            return []
        try:
            told = self._registry.against(pin.subject, schema.kind, schema.text, pin.version, schema.references)
            return told + (differences(self._registry.schema(pin.schema_id), schema) if told else [])
        except NotFound:
            return []
        except Rejected as error:
            return [error.reason]

    def _unread(self, schema: Schema, subject: str, version: int) -> str:
        try:
            record_of(self._spec, schema, subject, version)
        except Rejected as error:
            return f"is not read: {error.reason}"
        return ""

    def _places(self, number: int) -> list[tuple[str, int]]:
        try:
            return self._registry.places(number)
        except NotFound:
            return []


def _new(found: Changes) -> str:
    if not found.added:
        return "no new fields"
    lost = [name for name in found.added if "." not in name and name not in EVENT_FIELDS]
    note = f"new fields: {_listed(found.added)}"
    return f"{note}; no event has {_listed(lost)}: not kept, unless by a handler" if lost else note


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED_MOST} more" if len(names) > _NAMED_MOST else ""
    return "; ".join(names[:_NAMED_MOST]) + rest
