"""`streams`: topics that are read without end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import Rejected
from cluster.streams.model import Begin, Format, SchemaUse, StreamSpec, Table
from serve_apps.cli.exits import Misused
from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, group, verb
from serve_apps.cli.workers import show_workers, stream_workers

if TYPE_CHECKING:
    from cluster.stores.kafka_stream import KafkaStream
    from cluster.streams.model import Look, Stream, StreamPartition
    from cluster.streams.schemas import SeenSchema

Name = Annotated[str, typer.Argument(help="The stream's name, which is also its source's.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    streams = group("Topics that are read without end: Kafka, and what Debezium captures.")
    app.add_typer(streams, name="streams", rich_help_panel="Facts")
    verb(streams, "add")(add)
    verb(streams, "list")(list_streams)
    verb(streams, "show")(show)
    verb(streams, "pause")(pause)
    verb(streams, "resume")(resume)
    verb(streams, "remove")(remove)


def add(
    session: Session,
    name: Name,
    topic: Annotated[str, typer.Option(help="The topic; its brokers are those of streams.kafka.")],
    tenant: Annotated[list[str], typer.Option("--tenant", "-t", help="Whose records it may hold; may be repeated.")],
    format: Annotated[Format, typer.Option(help="What a value is: one event, or an envelope.")] = "event",
    table: Annotated[Table | None, typer.Option(help="Of debezium: whose changes the topic holds.")] = None,
    begin: Annotated[Begin, typer.Option(help="Where to begin the first time.")] = "earliest",
    schema: Annotated[
        SchemaUse,
        typer.Option(help="registry: each record names its schema; pinned: JSON that one JSON Schema describes."),
    ] = "none",
    subject: Annotated[str, typer.Option(help="Of the topic's schemas.  [default: TOPIC-value]")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    licence: Annotated[str, typer.Option(help="Under which licence its facts are.")] = "",
    actor: ActorOption = "command line",
) -> None:
    """Read a topic from now on, without end. Its source is registered in each tenant. Safe to call twice."""
    named = "" if schema == "none" else subject or f"{topic}-value"
    if subject and schema == "none":
        raise Misused("--subject belongs to --schema registry or --schema pinned")
    spec = StreamSpec(name, tuple(tenant), topic, format, table or "", begin, schema, named)
    session.control.streams.check(spec)
    pin = _newest(session, spec)
    with _topics(session) as topics:
        look = topics.look(topic)
    if look.unseen and begin == "latest":
        raise Rejected(f"partitions {sorted(look.unseen)} have no leader that says where they end: add it when they do")
    now = time.time()
    for one in spec.tenants:
        session.control.sources.register(one, name, now, owner=owner, transport="kafka", licence=licence)
    added = session.control.streams.add(spec, now)
    if pin is not None and not session.control.stream_schemas.list(name):
        session.control.stream_schemas.saw(name, pin)
    for one in spec.tenants:
        session.control.audit.append(one, actor, "stream.add", name, now, {"topic": topic, "format": format})
    waiting, there = sum(look.end[p] - look.first[p] for p in look.end), len(look.end) + len(look.unseen)
    session.output.result({"stream": plain(added, ()), "topic_partitions": there, "topic_records": waiting})
    session.output.text(
        f"stream {name} reads topic {topic}: {there} partitions, {waiting:,} records there now;"
        " `intelgraph streams list` shows how far it is"
    )
    if schema != "none":
        held = f"version {pin.version} of it" if pin else "the first schema that its records name"
        session.output.text(f"its schemas are of subject {named}; what comes is held against {held}")


def list_streams(session: Session) -> None:
    """List the streams with their state and lag."""
    found = [
        (stream, session.control.streams.partitions(stream.spec.name)) for stream in session.control.streams.list()
    ]
    workers = stream_workers(session)
    session.output.result({"streams": [plain(stream, parts) for stream, parts in found], "stream_workers": workers})
    columns = ("name", "state", "topic", "format", "tenants", "partitions", "accepted", "dead", "lag", "seen", "note")
    session.output.table("streams", columns, [
        (s.spec.name, s.state, s.spec.topic, _format(s), ", ".join(s.spec.tenants), len(parts),
         sum(p.acked for p in parts), sum(p.dead for p in parts), _lag(parts), moment(s.looked), s.note)
        for s, parts in found
    ])  # fmt: skip
    show_workers(session.output, workers)


def show(session: Session, name: Name) -> None:
    """Show how far each partition of a stream is, and which schemas it has met."""
    stream, parts = session.control.streams.get(name), session.control.streams.partitions(name)
    schemas = session.control.stream_schemas.list(name)
    session.output.result({"stream": plain(stream, parts), "partitions": [_plain_part(part) for part in parts],
                           "schemas": [asdict(one) for one in schemas]})  # fmt: skip
    session.output.facts({
        "stream": name, "state": f"{stream.state} {stream.note}".strip(), "topic": stream.spec.topic,
        "topic's id": stream.topic_id, "tenants": ", ".join(stream.spec.tenants), "format": _format(stream),
        "topic last seen": moment(stream.looked),
    })  # fmt: skip
    if schemas:
        session.output.table("schemas", ("state", "name", "id", "subject", "version", "first met", "what it says"), [
            (one.state, one.name, one.schema_id or "-", one.subject, one.version or "-", moment(one.seen), one.note)
            for one in schemas
        ])  # fmt: skip
    columns = ("partition", "epoch", "next offset", "topic's end", "lag", "accepted", "dead", "last record", "note")
    session.output.table("partitions", columns, [
        (p.partition, p.epoch or "waits", p.offset, p.end, _lag([p]), p.acked, p.dead,
         moment(p.record_ms / 1000 if p.record_ms else None), _note(p))
        for p in parts
    ])  # fmt: skip


def pause(session: Session, name: Name, actor: ActorOption = "command line") -> None:
    """Read nothing more of a stream until `resume`."""
    _set_state(session, name, actor, "paused")


def resume(
    session: Session,
    name: Name,
    skip_removed: Annotated[
        bool, typer.Option("--skip-removed", help="Give up records that the topic has removed unread.")
    ] = False,
    skip_to: Annotated[
        str, typer.Option(metavar="PARTITION:OFFSET", help="Give up what a stopped partition has before an offset.")
    ] = "",
    accept_schema: Annotated[
        bool, typer.Option("--accept-schema", help="Pin the schema that it stopped at; what that cannot say is dead.")
    ] = False,
    actor: ActorOption = "command line",
) -> None:
    """Let a stream go on that was paused or has stopped; partitions that have stopped are tried again at once."""
    from cluster.streams.follow import follow

    if skip_to and (skip_removed or accept_schema):
        raise Misused("--skip-to is a decision of its own: say it alone, then `streams resume` with the others")
    place = _place(skip_to) if skip_to else None
    stream, look = session.control.streams.get(name), None
    if stream.state == "stopped" or skip_removed:  # nothing is changed before it is known that the stream can go on
        with _topics(session) as topics:
            look = _look(topics.look(stream.spec.topic))
        parts = session.control.streams.partitions(name)
        why = follow(stream.topic_id, parts, look, stream.spec.begin).stop
        if why and not skip_removed:
            raise Rejected(f"{why}; restore them, or say --skip-removed to go on without")
    accepted = _accepted(session, stream.spec) if accept_schema else []
    if place is not None:
        session.control.streams.skip_to(name, *place)
    session.control.stream_schemas.forget_refused(name)
    if look is not None and skip_removed:
        session.control.streams.skip_removed(name, look)
    detail = {"skip_removed": skip_removed, "skip_to": skip_to, "accepted": [one.key for one in accepted],
              "was": stream.note}  # fmt: skip
    _set_state(session, name, actor, "active", detail)


def remove(session: Session, name: Name, actor: ActorOption = "command line") -> None:
    """Forget a stream and how far it was. Its facts stay; added again, it reads its topic from the beginning."""
    stream = session.control.streams.get(name)
    session.control.streams.remove(name)
    for tenant in stream.spec.tenants:
        session.control.audit.append(tenant, actor, "stream.remove", name, time.time(), {"topic": stream.spec.topic})
    session.output.result({"stream": name, "state": "removed"})
    session.output.text(f"stream {name} is removed; its facts and its source stay")


def _set_state(session: Session, name: str, actor: str, state: Any, detail: dict[str, Any] | None = None) -> None:
    stream = session.control.streams.set_state(name, state)
    for tenant in stream.spec.tenants:
        session.control.audit.append(tenant, actor, f"stream.{state}", name, time.time(), detail)
    session.output.result({"stream": plain(stream, ())})
    session.output.text(f"stream {name} is {state}")


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise typer.BadParameter(f"{text!r} is not PARTITION:OFFSET, as in 3:1200", param_hint="--skip-to")
    return int(partition), int(offset)


def _newest(session: Session, spec: StreamSpec) -> SeenSchema | None:
    if spec.schema == "none":
        return None
    from actors.schema_pins import newest
    from cluster.stores.schema_registry import SchemaRegistry

    with closing(SchemaRegistry(session.settings.streams.registry)) as registry:
        return newest(registry, spec, time.time())


def _accepted(session: Session, spec: StreamSpec) -> list[SeenSchema]:
    if spec.schema == "none":
        raise Misused(f"stream {spec.name!r} uses no schemas")
    from actors.schema_pins import accept
    from cluster.stores.schema_registry import SchemaRegistry

    with closing(SchemaRegistry(session.settings.streams.registry)) as registry:
        return accept(session.control, registry, spec, time.time())


@contextmanager
def _topics(session: Session) -> Iterator[KafkaStream]:
    from cluster.stores.kafka_stream import KafkaStream

    settings = session.settings.streams
    with closing(
        KafkaStream(settings.kafka, settings.timeout_s, settings.read_ahead_bytes, settings.batch_bytes)
    ) as topics:
        yield topics


def _look(found: Any) -> Look:
    from cluster.streams.model import Look

    return Look(found.id, found.first, found.end, unseen=found.unseen)


def plain(stream: Stream, parts: Any) -> dict[str, Any]:
    """A stream as plain values."""
    own = {**asdict(stream.spec), "state": stream.state, "note": stream.note, "topic_id": stream.topic_id,
           "looked": stream.looked, "created": stream.created}  # fmt: skip
    if not parts:
        return own
    return {**own, "partitions": len(parts), "lag_records": sum(part.lag_records for part in parts),
            "lag_s": _lag_s(parts), "stopped_partitions": [part.partition for part in parts if part.note],
            "acked": sum(part.acked for part in parts), "dead": sum(part.dead for part in parts)}  # fmt: skip


def _plain_part(part: StreamPartition) -> dict[str, Any]:
    return {**asdict(part), "lag_records": part.lag_records, "lag_s": part.lag_s(time.time())}


def _format(stream: Stream) -> str:
    return f"{stream.spec.format} {stream.spec.table}".strip()


def _lag(parts: Sequence[StreamPartition]) -> str:
    records, seconds = sum(part.lag_records for part in parts), _lag_s(parts)
    return f"{records:,} records, {seconds:,.0f} s"


def _lag_s(parts: Sequence[StreamPartition]) -> float:
    """Of the partition that is furthest behind; 0 when all are read to their ends."""
    now = time.time()
    return max((part.lag_s(now) for part in parts), default=0.0)


def _note(part: StreamPartition) -> str:
    return "; ".join(note for note in ("" if part.cut is None else f"new epoch at {part.cut}", part.note) if note)
