"""The canaries of shards, as commands show them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_apps.cli.output import Output
    from serve_apps.cli.session import Session


def canaries(session: Session) -> list[dict[str, Any]]:
    """The last of each shard, with its `age_s`; none where no node is up, or it sends none."""
    from actors.canary import told_canaries
    from serve_apps.node_state import read_node

    every_s, now = session.settings.shards.canary_s, time.time()
    found = told_canaries(session.state_dir) if read_node(session.state_dir) else []
    return [{**asdict(canary), "age_s": round(canary.age_s(now, every_s), 3)} for canary in found]


def show_canaries(output: Output, found: list[dict[str, Any]]) -> None:
    """A line for each shard, for people."""
    for canary in found:
        back = canary["seconds"] is not None and canary["age_s"] == round(canary["seconds"], 3)
        reason = f": {canary['reason']}" if canary["reason"] else ""
        told = f"back after {canary['age_s']:.2f} s" if back else f"none for {canary['age_s']:,.0f} s{reason}"
        output.facts({f"canary of {canary['shard']}": told})
