"""`log`: the event log's generations, and an operator's word on entries that nobody holds any more."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cluster.errors import Rejected
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, group, verb

_LOST = re.compile(r"[0-9]{1,4}:[0-9]{1,19}-[0-9]{1,19}(,[0-9]{1,4}:[0-9]{1,19}-[0-9]{1,19})*\Z")
Partitions = Annotated[int, typer.Argument(metavar="N", min=1, max=1_000, help="How many partitions.")]
Lost = Annotated[str, typer.Argument(metavar="LOST", help="As `up` has named them: 0:61-70,3:5-9.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    log = group("The event log itself: its generations, and what it has lost.")
    app.add_typer(log, name="log", rich_help_panel="Running it")
    verb(log, "show")(show)
    verb(log, "accept-loss")(accept_loss)
    verb(log, "repartition")(repartition)


def show(session: Session) -> None:
    """Show the log's partitions, and where its generations begin."""
    log = session.log
    begins, ends, identity = log.begins(), log.ends(), log.identity
    partitions = [{"partition": p, "begin": begins[p], "end": ends[p]} for p in sorted(ends)]
    seams = [
        {"generation": one.number, "partition": p, **seam._asdict()}
        for one in log.generations
        for p, seam in sorted(one.seams.items())
        if seam.resumed > seam.end
    ]
    session.output.result({**identity._asdict(), "ends": partitions, "seams": seams})
    title = f"log {identity.name[:8]}, generation {identity.generation}, {identity.partitions} partitions"
    session.output.table(title, ("partition", "first entry", "last entry", ""), [
        (str(one["partition"]), one["begin"], one["end"], "given up" if one["partition"] >= identity.partitions else "")
        for one in partitions
    ])  # fmt: skip
    if seams:
        session.output.table("where a tail was lost", ("generation", "partition", "ended at", "lake had",
                             "goes on behind"), [
            (str(one["generation"]), str(one["partition"]), one["end"], one["kept"], one["resumed"]) for one in seams
        ])  # fmt: skip


def accept_loss(session: Session, lost: Lost, actor: ActorOption = "operator") -> None:
    """Say that the system may start although nobody holds these entries any more. Counts for them alone."""
    from actors import mending

    if not _LOST.match(lost):
        raise Rejected("LOST is what `intelgraph up` has named: partition:first-last, joined by commas")
    mending.accept_loss(session.stack, lost, actor)
    session.output.result({"accepted": lost})
    session.output.text("noted; `intelgraph up` opens a new generation of the log, if nothing else is lost")


def repartition(session: Session, partitions: Partitions, actor: ActorOption = "operator") -> None:
    """Say that the next start gives the log another number of partitions. Changes nothing before that."""
    from actors.repartition import ask

    before = ask(session.stack, partitions, actor).partitions
    session.output.result({"from": before, "to": partitions})
    session.output.text(
        f"noted; stop the system (`intelgraph down`), set log.partitions to {partitions}, and `intelgraph up` gives the"
        f" log {partitions} partitions. Until then it has {before}"
    )
