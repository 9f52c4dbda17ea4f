"""`schemas`: what the schema registry has, and whether a schema may follow what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.errors import IntelGraphError, NotFound, Rejected
from serve_apps.cli.exits import Exit, error_name
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import group, verb

if TYPE_CHECKING:
    from cluster.stores.schema_registry import SchemaRegistry, SubjectVersion

Kind = Literal["avro", "json"]
VersionOption = Annotated[int, typer.Option("--version", min=0, help="Of the subject; 0: its newest.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    schemas = group("Schemas of topics, in the registry of streams.registry.")
    app.add_typer(schemas, name="schemas", rich_help_panel="Facts")
    verb(schemas, "check")(check)
    verb(schemas, "list")(list_schemas)
    verb(schemas, "show")(show)


def check(
    session: Session,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The schema: .avsc, or JSON Schema.")],
    subject: Annotated[str, typer.Option("--subject", help="What it is to be the next version of.")],
    type: Annotated[Kind | None, typer.Option(help="Of the schema. [default: by its name and content]")] = None,
    version: VersionOption = 0,
) -> int:
    """Say whether a schema may follow a subject's. Exit 1: it may not, and why; 2: the registry could not be asked."""
    text = file.read_text()
    kind = (type or _kind(file, text)).upper()
    try:
        with _registry(session) as registry:
            reasons, new = _against(registry, subject, kind, text, version)
    except IntelGraphError as error:
        session.output.result({"error": {"kind": error_name(error), "message": str(error)}})
        session.output.note(f"intelgraph: {error}", style="red")
        return Exit.USAGE
    session.output.result({"subject": subject, "type": kind, "compatible": not reasons, "new": new, "reasons": reasons})
    for reason in reasons:
        session.output.text(reason)
    good = "there is no such subject yet: anything may be its first" if new else "it may follow what is there"
    session.output.text(f"{subject}: {'it may not follow what is there' if reasons else good}")
    return Exit.FAILED if reasons else Exit.DONE


def list_schemas(session: Session) -> None:
    """List the subjects with their newest versions."""
    with _registry(session) as registry:
        found = [registry.version(subject) for subject in registry.subjects()]
    session.output.result({"subjects": [_plain(one) for one in found]})
    session.output.table("subjects", ("subject", "version", "id", "type", "name"), [
        (one.subject, one.version, one.schema.id, one.schema.kind, one.schema.name) for one in found
    ])  # fmt: skip


def show(
    session: Session,
    subject: Annotated[str, typer.Argument(help="A subject.")],
    version: VersionOption = 0,
) -> None:
    """Print a schema as the registry has it."""
    with _registry(session) as registry:
        found = registry.version(subject, version or "latest")
    session.output.result({**_plain(found), "schema": found.schema.text})
    session.output.lines_for_people([found.schema.text])


@contextmanager
def _registry(session: Session) -> Iterator[SchemaRegistry]:
    from cluster.stores.schema_registry import SchemaRegistry

    with closing(SchemaRegistry(session.settings.streams.registry)) as registry:
        yield registry


def _against(registry: SchemaRegistry, subject: str, kind: str, text: str, version: int) -> tuple[list[str], bool]:
    """(why it may not follow, whether there is nothing to follow). Raises Retryable, NotFound."""
    from actors.connectors.schema_values import differences, values_of
    from cluster.streams.schemas import Schema

    schema = Schema(0, kind, text)
    try:
        values_of(schema)
    except Rejected as error:
        return [f"streams do not read it: {error.reason}"], False
    try:
        earlier = registry.version(subject, version or "latest").schema
    except NotFound:
        if version:
            raise
        return [], True
    try:
        told = registry.against(subject, kind, text, version or "latest")
        return told + (differences(earlier, schema) if told else []), False
    except NotFound:
        raise
    except Rejected as error:
        return [error.reason], False


def _kind(file: Path, text: str) -> Kind:
    """What its suffix says, or that JSON Schema has no type of this name."""
    return "avro" if file.suffix == ".avsc" or '"record"' in text else "json"


def _plain(one: SubjectVersion) -> dict[str, Any]:
    schema = one.schema
    return {"subject": one.subject, "version": one.version, "id": schema.id, "type": schema.kind, "name": schema.name,
            "fingerprint": schema.fingerprint}  # fmt: skip
