"""`replay`: what was taken in is appended to the log once more: it heals what lacks it, and changes nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_apps.cli.exits import Exit, Misused
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, verb

if TYPE_CHECKING:
    from rich.progress import Progress

    from actors.fact_replay import Replayed, Tell
    from cluster.stores.graph import Outcomes

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    verb(app, "replay", rich_help_panel="Facts")(replay)


def replay(
    session: Session,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Whose data.")] = None,
    every_tenant: Annotated[bool, typer.Option("--all-tenants", help="In place of --tenant.")] = False,
    source: Annotated[str | None, typer.Option("--source", help="Only what this source said.")] = None,
    case: Annotated[str | None, typer.Option("--case", "-c", help="Only this case.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only things of this type.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Only the thing of this id, with --type.")] = None,
    first: Annotated[
        str | None, typer.Option("--from-position", metavar="N[,N]...", help="From this position of the source on.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to-position", metavar="N[,N]...", help="Up to this position, and with it.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Taken in at this time (ISO 8601) or later.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Taken in before this time.")] = None,
    rate_per_s: Annotated[float, typer.Option("--rate", min=1, max=1e7, help="Records a second, at most.")] = 10_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many and which, append nothing.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="Longest wait for the shards.")] = 120.0,
    actor: ActorOption = "command line",
) -> int:
    """Append facts to the log once more, from lake and log: duplicates where they are, healing where they are not.

    Harmless: nothing that came later is overtaken. What the replay appends is not read by it again. Where it was cut
    off, the same words go on.
    """
    from actors.chosen_facts import Chosen
    from actors.fact_replay import FactReplay
    from serve_apps.cli.loading import wait_applied

    if (tenant is None) != every_tenant:
        raise Misused("say whose facts: --tenant, or --all-tenants")
    chosen = Chosen(
        tenant, source, case, type_, id, _position("--from-position", first), _position("--to-position", last),
        _time_ms("--since", since), _time_ms("--until", until),
    )  # fmt: skip
    before = _outcomes(session, tenant, source)
    with session.output.progress() as bars:
        made = FactReplay(session.stack, session.log)
        done = made.replay(chosen, actor, rate_per_s=rate_per_s, dry_run=dry_run, tell=_bar(bars))
    left = 0 if dry_run else wait_applied(session, done.reached, wait_s)
    _show(session, done, dry_run, left, None if dry_run else _grown(before, _outcomes(session, tenant, source)))
    return Exit.RETRY if left else Exit.DONE


def _position(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not 1 <= len(parts) <= 8 or not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        raise Misused(f"{option} {text}: one to eight whole numbers, such as 120 or 5,3")
    return tuple(map(int, parts))


def _time_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise Misused(f"{option} {text}: a time such as 2026-03-01T08:00:00+01:00; without an offset, local") from error


def _bar(bars: Progress) -> Tell:
    task = bars.add_task("replaying", total=None, detail="")

    def tell(done: Replayed) -> None:
        rate = done.records / max(done.seconds, 1e-9)
        detail = f"{done.records:,} records, {rate:,.0f}/s, {done.left:,} log entries left"
        bars.update(task, completed=done.entries, total=done.entries + done.left, detail=detail)

    return tell


def _outcomes(session: Session, tenant: str | None, source: str | None) -> Outcomes:
    """What shards have counted for a tenant or source, or for all, so far."""
    from cluster.stores.graph import Outcomes
    from serve_apps.cli.conservation import outcomes_of

    found = outcomes_of(session.shards.values()).items()
    mine = [one for (t, s, _), one in found if tenant in (None, t) and source in (None, s)]
    return Outcomes(sum(o.applied for o in mine), sum(o.duplicate for o in mine), sum(o.stale for o in mine))


def _grown(before: Outcomes, after: Outcomes) -> dict[str, int]:
    return {name: getattr(after, name) - getattr(before, name) for name in ("applied", "duplicate", "stale")}


def _show(session: Session, done: Replayed, dry_run: bool, left: int, grown: dict[str, int] | None) -> None:
    output = session.output
    by_source = [{"tenant": t, "source": s, "records": n} for (t, s), n in sorted(done.by_source.items())]
    document: dict[str, Any] = {
        "dry_run": dry_run, "records": done.records, "floors_and_priorities": done.system, "by_source": by_source,
        "by_type": dict(sorted(done.by_type.items())), "entries": done.entries, "seconds": round(done.seconds, 3),
        "resumed": done.resumed, "reached": done.reached, "behind": left, "outcomes": grown,
    }  # fmt: skip
    output.result(document)
    if dry_run:
        output.text(f"{done.records:,} records would be appended; nothing was")
    else:
        rate = done.records / max(done.seconds, 1e-9)
        output.text(f"{done.records:,} records appended once more in {done.seconds:.1f} s ({rate:,.0f}/s)")
    if done.resumed:
        output.text("it went on where the same replay was cut off; these are the records of this part")
    output.table("by source", ("tenant", "source", "records"), [tuple(row.values()) for row in by_source[:_SHOWN]])
    output.table("by type", ("type", "records"), done.by_type.most_common(_SHOWN))
    if grown is not None:
        output.text(
            "meanwhile the shards counted, live records of these sources among them: "
            f"{grown['applied']:,} applied, {grown['duplicate']:,} duplicate, {grown['stale']:,} stale"
        )
    if left:
        output.text("the shards are still behind: `intelgraph lag`", "yellow")
