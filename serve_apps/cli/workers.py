"""How many stream workers there are, and why, as commands show it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from actors.workers_told import told_workers
from serve_apps.cli.output import Output, moment

if TYPE_CHECKING:
    from serve_apps.cli.session import Session


def stream_workers(session: Session) -> dict[str, Any] | None:
    """What was decided last, as plain values; None where no node is up, or it has not looked yet."""
    from serve_apps.node_state import read_node

    told = told_workers(session.state_dir) if read_node(session.state_dir) else None
    return None if told is None else asdict(told)


def show_workers(output: Output, told: dict[str, Any] | None) -> None:
    """A line or two for people; none where there is nothing to say."""
    if told is None:
        return
    draining = f", {', '.join(told['draining'])} draining" if told["draining"] else ""
    there = f"{told['ready']} of {told['wanted']} (bounds {told['least']} to {told['most']}){draining}"
    output.facts({"stream workers": f"{there}: {told['reason']}"})
    if told["change"]:
        output.facts({"changed last": f"{moment(told['changed'])}, {told['change']}"})
