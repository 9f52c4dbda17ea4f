"""`snapshot`: take one, look at it, prove that it is whole, compare two."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_apps.cli.exits import Exit
from serve_apps.cli.output import size
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import group, verb

if TYPE_CHECKING:
    from workloads.snapshot.layout import Manifest
    from workloads.snapshot.verify import Verified

Which = Annotated[str, typer.Argument(help="A snapshot's id.")]
_SHOWN_CHANGES = 50


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    snapshot = group("Whole copies of the graph for overlays and cold questions.")
    app.add_typer(snapshot, name="snapshot", rich_help_panel="Overlays and snapshots")
    verb(snapshot, "create")(create)
    verb(snapshot, "list")(list_all)
    verb(snapshot, "verify")(verify)
    verb(snapshot, "diff")(diff)


def create(
    session: Session,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the lake.")
    ] = 120.0,
    keep: Annotated[int | None, typer.Option(min=1, help="Remove all but so many snapshots afterwards.")] = None,
) -> None:
    """Take a snapshot of everything that is in the log at this moment."""
    from serve_apps.cli.cluster import joined

    began = time.monotonic()
    with session.output.waiting("taking a snapshot"), joined(session):
        manifest = take(session, timeout_s)
    removed: tuple[str, ...] = ()
    if keep is not None:
        from workloads.snapshot.prune import prune

        removed = prune(session.stack.snapshots, keep).removed
    seconds = time.monotonic() - began
    session.output.result({**summary(manifest), "seconds": round(seconds, 3), "removed": removed})
    session.output.facts({**summary(manifest), "seconds": seconds, "removed": ", ".join(removed) or None})


def take(session: Session, timeout_s: float) -> Manifest:
    """A snapshot of the log's ends of this moment; within `cluster.joined`. Raises as `take_snapshot`."""
    from serve_apps.cli.cluster import call
    from workloads.snapshot.job import take_snapshot

    ends = session.log.ends()
    call("lake-appender", "flush")
    return take_snapshot(session.stack.lake_address, session.stack.snapshots, ends, timeout_s=timeout_s)


def summary(manifest: Manifest) -> dict[str, Any]:
    """What people want to know of a snapshot."""
    counts = manifest.counts
    return {
        "snapshot": manifest.id, "asOf": manifest.as_of.time, "entities": counts["vertices"],
        "relationships": counts["edges"], "claims": counts["claims"], "tenants": len(manifest.tenants),
        "parent": manifest.parent or None, "content_hash": manifest.content_hash,
    }  # fmt: skip


def list_all(session: Session) -> None:
    """List all whole snapshots, oldest first."""
    from workloads.snapshot.read import list_snapshots

    found = [summary(manifest) for manifest in list_snapshots(session.stack.snapshots)]
    session.output.result({"snapshots": found})
    columns = ("snapshot", "asOf", "entities", "relationships", "claims", "tenants")
    session.output.table("snapshots", columns, [[row[name] for name in columns] for row in found])


def verify(
    session: Session,
    which: Annotated[str, typer.Argument(help="A snapshot's id.")] = "latest",
    shallow: Annotated[bool, typer.Option("--shallow", help="Only that every file is there, byte for byte.")] = False,
) -> int:
    """Check that a snapshot is, to the byte and row, what was written. Exit code 1 where it is not."""
    found, seconds = verified(session, which, not shallow)
    session.output.result({**asdict(found), "whole": found.is_whole, "seconds": round(seconds, 3)})
    session.output.facts({"snapshot": found.snapshot, "files": found.files, "bytes": size(found.bytes),
                          "rows": found.rows, "seconds": seconds})  # fmt: skip
    for problem in found.problems:
        session.output.text(f"  {problem}", "red")
    if found.is_whole:
        session.output.text("whole", "green")
        return Exit.DONE
    session.output.text("damaged: do not use it", "bold red")
    return Exit.FAILED


def verified(session: Session, which: str, deep: bool) -> tuple[Verified, float]:
    """(what verification found, seconds)."""
    from workloads.snapshot.read import open_snapshot
    from workloads.snapshot.verify import verify as look

    began = time.monotonic()
    with session.output.waiting("verifying"), open_snapshot(session.stack.snapshots, which) as snapshot:
        return look(snapshot, deep=deep), time.monotonic() - began


def diff(session: Session, before: Which, after: Which) -> None:
    """Show what differs between two snapshots."""
    from workloads.snapshot.diff import diff as compare
    from workloads.snapshot.read import open_snapshot

    where = session.stack.snapshots
    with session.output.waiting("comparing"), open_snapshot(where, before) as old, open_snapshot(where, after) as new:
        found = compare(old, new)
    session.output.result({**asdict(found), "counts": found.counts()})
    if found.is_proven_equal:
        session.output.text("equal: their content hashes are the same", "green")
        return
    rows = [(c.tenant, c.case, c.change, c.kind, c.type, c.id) for case in found.cases for c in case.changes]
    more = len(rows) - _SHOWN_CHANGES
    caption = f"and {more:,} more: --json has them all" if more > 0 else ""
    columns = ("tenant", "case", "change", "kind", "type", "id")
    session.output.table(f"{before} → {after}", columns, rows[:_SHOWN_CHANGES], caption)
    session.output.facts(found.counts())
