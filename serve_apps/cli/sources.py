"""`sources`: who writes facts, and which of several sources wins."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, TenantOption, group, verb

Name = Annotated[str, typer.Argument(help="The source's name.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    sources = group("Who writes facts: register, stop, and say which source wins.")
    app.add_typer(sources, name="sources", rich_help_panel="Facts")
    verb(sources, "list")(list_sources)
    verb(sources, "register")(register_source)
    verb(sources, "kill")(kill)
    verb(sources, "priority")(priority)


def list_sources(session: Session, tenant: TenantOption) -> None:
    """List a tenant's sources."""
    found = session.control.sources.list(tenant)
    session.output.result({"sources": [asdict(source) for source in found]})
    columns = ("name", "state", "priority", "positions", "transport", "owner", "licence", "since")
    session.output.table(f"sources of {tenant}", columns, [
        (s.name, s.state, s.priority, s.positions or "not used yet", s.transport, s.owner, s.licence, moment(s.created))
        for s in found
    ])  # fmt: skip


def register_source(
    session: Session,
    name: Name,
    tenant: TenantOption,
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    transport: Annotated[str, typer.Option(help="How its facts come: file, push, …")] = "file",
    licence: Annotated[str, typer.Option(help="Under which licence its facts are.")] = "",
    actor: ActorOption = "command line",
) -> None:
    """Register a source. Safe to call twice: one that is there stays as it is."""
    made = session.control.sources.register(
        tenant, name, time.time(), owner=owner, transport=transport, licence=licence
    )
    detail = {"owner": made.owner, "transport": made.transport, "licence": made.licence}
    session.control.audit.append(tenant, actor, "source.register", name, time.time(), detail)
    session.output.result({"source": asdict(made)})
    session.output.text(f"source {made.name} of {tenant}: {made.state}")


def kill(session: Session, name: Name, tenant: TenantOption, actor: ActorOption = "command line") -> None:
    """Stop a source for good: nothing of it is accepted any more. What it said stays."""
    session.control.sources.kill(tenant, name)
    session.control.audit.append(tenant, actor, "source.kill", name, time.time())
    session.output.result({"source": name, "state": "killed"})
    session.output.text(f"source {name} of {tenant} is killed: nothing of it is accepted any more")


def priority(
    session: Session,
    name: Name,
    value: Annotated[int, typer.Argument(help="The greater wins; 0 at first. Negative: put `--` before it.")],
    tenant: TenantOption,
    actor: ActorOption = "command line",
) -> None:
    """Say which of several sources wins where they differ. All values stay, side by side."""
    from cluster import batch
    from cluster.model import priority_record
    from cluster.stores.log import Append

    session.control.sources.get(tenant, name)
    log = session.log
    # The audit's sequence only grows and is never used twice: it orders priorities.
    detail = {"priority": value}
    revision = session.control.audit.append(tenant, actor, "source.priority", name, time.time(), detail)
    records = [priority_record(tenant, name, value, revision, p) for p in range(log.identity.partitions)]
    log.append([Append(p, batch.encode([record]), 0) for p, record in enumerate(records)])
    session.output.result({"source": name, "priority": value, "revision": revision})
    session.output.text(f"source {name} of {tenant} has priority {value} from now on")
