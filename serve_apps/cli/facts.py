"""`export`, `hash`, `audit`: what the hot shards hold, and whether it is all there."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from serve_apps.cli.exits import Exit, Misused
from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import TenantOption, verb

OneCase = Annotated[str | None, typer.Option("--case", "-c", help="Only this case.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    verb(app, "export", rich_help_panel="Facts")(export)
    verb(app, "hash", rich_help_panel="Facts")(hash_graph)
    verb(app, "audit", rich_help_panel="Facts")(audit)


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 (hexadecimal) of lines, each with its line break."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def export(session: Session, tenant: TenantOption, case: OneCase = None) -> None:
    """Print the visible graph as events, sorted, one JSON object a line (with --json as well)."""
    from cluster.stores.shard_export import export_lines

    with session.output.waiting("reading the shards"):
        lines = export_lines(session.shards.values(), tenant, case)
    session.output.lines(lines)


def hash_graph(
    session: Session,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant. [default: all]")] = None,
    case: OneCase = None,
    state: Annotated[
        bool, typer.Option("--state", help="Also registers, tombstones, floors and versions: what rebuilds compare.")
    ] = False,
) -> None:
    """Print the SHA-256 of the visible graph, the same however its events came."""
    from cluster.stores.shard_export import export_lines, state_lines

    if state and case is not None:
        raise Misused("--state and --case exclude each other: floors are of the tenant, not of a case")
    with session.output.waiting("reading the shards"):
        shards = session.shards.values()
        lines = state_lines(shards, tenant) if state else export_lines(shards, tenant, case)
    digest = digest_of(lines)
    scope = {"tenant": tenant, "case": case, "state": state}
    session.output.result({**scope, "lines": len(lines), "sha256": digest})
    session.output.lines_for_people([digest])
    session.output.note(f"{len(lines):,} lines")


def audit(
    session: Session,
    deadline_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for shards that are behind.")
    ] = 60.0,
    actions: Annotated[
        bool,
        typer.Option(
            "--actions",
            help="Show instead who did what: undos, replays, sources; without --tenant: to the installation.",
        ),
    ] = False,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Whose actions.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many actions, the latest.", min=1, max=10_000)] = 100,
) -> int:
    """Check that every record has exactly one outcome and every load is in the log. Exit code 1 where one is not so.

    Counts found in the files of the lake and in the log, counts of the shards, and counts of the loads are kept apart
    and have to agree, for each log partition, each shard, each epoch of a source and each load: nothing is missing and
    nothing is too many. Reads the whole lake.
    """
    from serve_apps.cli import conservation

    if tenant is not None and not actions:
        raise Misused("--tenant is for --actions: records are counted over all tenants")
    if actions:
        show_actions(session, tenant, limit)
        return Exit.DONE
    with session.output.waiting("counting"):
        found = conservation.audit(session, deadline_s)
    output = session.output
    output.result(found.as_json())
    output.table("log partitions: records found in lake and log, as told, counted by shards", ("partition",
                 "up to entry", "found", "told", "counted", "equal"),
                 [(str(p.partition), p.at, p.found, p.logged, p.counted, p.holds)
                  for p in found.partitions])  # fmt: skip
    output.table("shards: each record has one outcome", ("shard", "records", "applied", "duplicate", "stale",
                 "by source", "equal"),
                 [(s.shard, s.records, s.applied, s.duplicate, s.stale, s.by_source, s.holds)
                  for s in found.shards])  # fmt: skip
    uneven = [epoch for epoch in found.epochs if not epoch.holds]
    output.text(f"epochs of sources: {len(found.epochs):,}; in {len(uneven):,} the log's records and the shards'"
                " outcomes differ")  # fmt: skip
    if uneven:
        output.table("epochs that do not balance", ("tenant", "source", "epoch", "in the log", "outcomes"),
                     [(e.tenant, e.source, str(e.epoch), e.logged, e.outcomes) for e in uneven])  # fmt: skip
    output.table("loads: what was acknowledged is in the log, and nothing else", ("tenant", "source", "epoch", "loads",
                 "acked", "dead", "in the log", "replayed", "letters", "too many", "holds"),
                 [(x.tenant, x.source, "all" if x.epoch is None else str(x.epoch), x.loads, x.acked, x.dead, x.logged,
                   x.replayed, x.letters, x.unexplained, x.holds) for x in found.loads])  # fmt: skip
    if found.streams:
        output.table("streams: what was acknowledged is in the log", ("stream", "acked", "dead", "in the log",
                     "acked by loads", "holds"),
                     [(x.stream, x.acked, x.dead, x.logged, x.elsewhere, x.holds) for x in found.streams])  # fmt: skip
    letters = [(t, state, n) for t, states in found.dead_letters.items() for state, n in states.items()]
    output.table("dead letters", ("tenant", "state", "records"), letters)
    output.text("everything balances" if found.holds else "something does not balance",
                "green" if found.holds else "bold red")  # fmt: skip
    return Exit.DONE if found.holds else Exit.FAILED


def show_actions(session: Session, tenant: str | None, limit: int) -> None:
    """The latest actions on a tenant's data, or on the installation itself, oldest first."""
    from cluster.stores.control_audit import INSTALLATION

    found = deque(session.control.audit.every(INSTALLATION if tenant is None else tenant), limit)
    session.output.result({"actions": [asdict(action) for action in found]})
    session.output.table(f"actions on {tenant or 'the installation'}", ("at", "who", "action", "on", "detail"), [
        (moment(x.at), x.actor, x.action, x.subject, json.dumps(x.detail) if x.detail else "") for x in found
    ])  # fmt: skip
