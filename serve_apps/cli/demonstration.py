"""`demo`: the whole system on this machine's own software."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_apps.cli.lifecycle import going_on
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import verb


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    verb(app, "demo", rich_help_panel="Running it")(demo)


def demo(
    session: Session,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that read this machine's packages.")] = 2,
) -> int:
    """Start everything, take in this machine's own software, rank it, and ask five questions. Safe to repeat."""
    from serve_apps.demo.run import run

    with going_on(session):
        return run(session, workers)
