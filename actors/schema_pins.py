"""Pins the newest schema of a stream's subject: for who adds a stream, or accepts what has changed."""

from __future__ import annotations

from cluster.errors import NotFound, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.schema_registry import SchemaRegistry
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import SeenSchema


def newest(registry: SchemaRegistry, spec: StreamSpec, now: float) -> SeenSchema | None:
    """The newest schema of a stream's subject; None where the registry has none, and records say theirs themselves.

    Raises:
        Rejected: records do not name a schema, and there is none for them. Unavailable: the registry does not answer.
    """
    try:
        found = registry.version(spec.subject)
    except NotFound as error:
        if spec.schema == "pinned":
            raise Rejected(
                f"the schema registry has no subject {spec.subject!r}: register the topic's schema, or name another"
            ) from error
        return None
    schema = found.schema
    if spec.schema == "pinned" and schema.kind != "JSON":
        raise Rejected(f"subject {spec.subject!r} is of type {schema.kind}; records of JSON need a JSON Schema")
    return SeenSchema(
        schema.fingerprint, schema.name, schema.id, spec.subject, found.version, "pinned", "newest of its subject",
        -1, 0, now,
    )  # fmt: skip


def accept(control: ControlStore, registry: SchemaRegistry, spec: StreamSpec, now: float) -> list[SeenSchema]:
    """Pins what a stream stopped at, and of records that name no schema the newest of the subject too; returns what
    was accepted. Safe to call twice. Raises as `newest` does."""
    latest = newest(registry, spec, now) if spec.schema == "pinned" else None
    accepted = list(control.stream_schemas.accept(spec.name))
    pinned = {one.key for one in control.stream_schemas.list(spec.name) if one.state == "pinned"}
    if latest is not None and latest.key not in pinned:
        control.stream_schemas.pin(spec.name, latest, alone=True)
        accepted.append(latest)
    return accepted
