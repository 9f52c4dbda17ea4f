"""`overlay`: who is central, who belongs together; computed on a snapshot, written back to the hot graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_apps.cli.exits import Exit
from serve_apps.cli.query import client
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import TenantOption, group, verb

if TYPE_CHECKING:
    from overlays.refresh import Refreshed

FOLDER = "overlays"
Name = Annotated[str, typer.Argument(help="The overlay: pagerank, louvain, or one of your own.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    overlay = group("What can be seen of a whole tenant at once: who is central, who belongs together.")
    app.add_typer(overlay, name="overlay", rich_help_panel="Overlays and snapshots")
    verb(overlay, "list")(list_all)
    verb(overlay, "run")(run)
    verb(overlay, "top")(top)


def folder(session: Session) -> Path:
    """Where results of overlays lie."""
    return session.state_dir / FOLDER


def list_all(
    session: Session,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Also its runs.")] = None,
) -> None:
    """List the overlays there are, and a tenant's latest runs."""
    from overlays.registry import BUILT_IN

    found = [{"overlay": o.name, "title": o.title, "source": o.source} for o in BUILT_IN.values()]
    runs = session.control.runs.list(tenant) if tenant else []
    session.output.result({"overlays": found, "runs": [_run_row(run) for run in runs]})
    session.output.table("overlays", ("name", "what it says", "source"), [list(row.values()) for row in found])
    if tenant:
        rows = [list(_run_row(run).values()) for run in runs]
        session.output.table(f"runs for {tenant}", ("overlay", "run", "state", "snapshot", "seconds", "gate"), rows)


def _run_row(run: Any) -> dict[str, Any]:
    seconds = None if run.ended is None else run.ended - run.started
    gate = (run.gate or {}).get("reason") or None
    return {"overlay": run.overlay, "run": run.run, "state": run.state, "snapshot": run.snapshot, "seconds": seconds,
            "gate": gate}  # fmt: skip


def run(
    session: Session,
    name: Name,
    tenant: TenantOption,
    snapshot: Annotated[str, typer.Option(help="What to compute on: a snapshot's id.")] = "latest",
    override: Annotated[str, typer.Option(help="Let a ranking pass that is unlike the last one, and say why.")] = "",
    seeds: Annotated[
        list[str],
        typer.Option(
            "--seed", help="TYPE:ID: rank by closeness to this entity, under a NAME of your own; several times."
        ),
    ] = [],  # noqa: B006
) -> int:
    """Compute an overlay and write its best back. Exit code 1 where the gate held it back: the old values stay."""
    from serve_apps.cli.cluster import joined

    with session.output.waiting(f"computing {name}"), joined(session):
        done = refresh(session, name, tenant, snapshot, override, seeds)
    document = described(done)
    session.output.result(document)
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in done.stages.items())
    session.output.facts({**document, "stages": stages, "detail": None})
    passed = done.run.state == "published"
    session.output.text("written back" if passed else f"held back: {done.result.gate.get('reason')}",
                        "green" if passed else "yellow")  # fmt: skip
    return Exit.DONE if passed else Exit.FAILED


def refresh(
    session: Session, name: str, tenant: str, snapshot: str = "latest", override: str = "", seeds: Sequence[str] = ()
) -> Refreshed:
    """One refresh; within `cluster.joined`. Raises as `overlays.refresh.refresh`."""
    from overlays.refresh import Surroundings
    from overlays.refresh import refresh as refresh_overlay
    from overlays.registry import find, near
    from workloads.overlay.backends import choose_backend
    from workloads.overlay.snapshot_input import SnapshotInput
    from workloads.snapshot.read import open_snapshot

    overlay, log = near(name, seeds) if seeds else find(name), session.log
    around = Surroundings(session.control.runs, log.append, log.identity.partitions, folder(session), session.settings)
    backend = choose_backend(session.settings.overlays.backend)
    with open_snapshot(session.stack.snapshots, snapshot) as opened:
        return refresh_overlay(overlay, SnapshotInput(opened, tenant), backend, around, override)


def described(done: Refreshed) -> dict[str, Any]:
    """A refresh as plain values."""
    result = done.result
    return {
        "overlay": result.overlay, "tenant": result.tenant, "run": done.run.run, "state": done.run.state,
        "snapshot": result.snapshot, "asOf": result.as_of, "written": result.written, "settled": list(done.settled),
        "gate": result.gate.get("reason"), "detail": result.detail,
        "stages": {stage: round(seconds, 4) for stage, seconds in done.stages.items()},
    }  # fmt: skip


def top(
    session: Session,
    name: Name,
    tenant: TenantOption,
    case: Annotated[str | None, typer.Option("--case", "-c", help="Best of one case. [default: of the tenant]")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 20,
) -> None:
    """Show an overlay's best entities as the API tells them, with asOf."""
    api = client(session, tenant)
    found = api.get(f"/v1/overlays/{name}/top", case=case, limit=limit)
    session.output.result(found)
    show_top(session, found, f"{name}, {case or tenant}")


def show_top(session: Session, found: Mapping[str, Any], title: str) -> None:
    """Print what `top` answers."""
    hidden = {"rank", "type", "id", "asOf", "snapshot", "run"}
    names = sorted({name for item in found["items"] for name in item} - hidden)
    rows = [(item["rank"], item["type"], item["id"], *(item.get(name) for name in names)) for item in found["items"]]
    age = f"asOf {found['asOf']}, run {found['run']}" + (", stale" if found["stale"] else "")
    session.output.table(title, ("rank", "type", "id", *names), rows, age)
