"""`shards`: which there are, and who owns which buckets. Cases with data stay where they are."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import group, verb

ShardId = Annotated[str, typer.Argument(help="The shard's id.")]
Wait = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    shards = group("Hot shards, and who owns which buckets.")
    app.add_typer(shards, name="shards", rich_help_panel="Running it")
    verb(shards, "list")(list_all)
    verb(shards, "add")(add)
    verb(shards, "drain")(drain)


def list_all(session: Session) -> None:
    """List the shards with their buckets, state and lag."""
    current = session.stack.current_map()
    rows = [
        {"id": s.id, "role": s.role, "state": s.state, "buckets": len(current.buckets_of(s.id)), "epoch": s.epoch,
         "lag_records": s.lag_records, "lag_seconds": s.lag_seconds, "weight": s.weight, "reported": s.updated}
        for s in session.control.shards.list()
    ]  # fmt: skip
    session.output.result({"revision": current.revision, "partitions": current.partitions, "shards": rows})
    shown = [[*list(row.values())[:-1], moment(row["reported"])] for row in rows]  # type: ignore[arg-type]
    title = f"shards, map revision {current.revision}"
    session.output.table(title, list(rows[0]) if rows else ["id"], shown)


def add(session: Session, timeout_s: Wait = 120.0) -> None:
    """Start one more embedded shard; it takes its share of the buckets that hold no case. Goes on where one stopped."""
    from actors import ownership

    session.require_node()
    with session.output.waiting("adding a shard") as tell:
        shard_id, new = ownership.add_shard(session.stack, timeout_s, tell)
        tell("shards catch up with the log")
        behind = ownership.wait_serving(session.stack, new.shards, timeout_s)
    taken = len(new.buckets_of(shard_id))
    session.output.result({"shard": shard_id, "buckets": taken, "revision": new.revision, "behind": behind})
    session.output.text(f"{shard_id} has {taken:,} of 4,096 buckets; cases that were there before stay where they are")
    _say_behind(session, behind)


def drain(session: Session, shard_id: ShardId, timeout_s: Wait = 120.0) -> None:
    """Take all buckets from a shard. Refused while it holds data, because cases cannot be moved yet."""
    from actors import ownership

    session.require_node()
    stack = session.stack
    before = stack.current_map()
    with session.output.waiting(f"draining {shard_id}") as tell:
        new = ownership.take_out(stack, shard_id)
        tell("shards catch up with the log")
        behind = ownership.wait_serving(stack, new.shards, timeout_s) if new != before else []
    given = len(before.buckets_of(shard_id))
    session.output.result({"shard": shard_id, "buckets": 0, "revision": new.revision, "given": given, "behind": behind})
    told = f"{shard_id} gave {given:,} buckets to the others" if given else f"{shard_id} owned no bucket already"
    session.output.text(f"{told}; its server runs until the system stops, and is not started again")
    _say_behind(session, behind)


def _say_behind(session: Session, behind: list[str]) -> None:
    if behind:
        session.output.text(f"still catching up with the log: {', '.join(behind)}; see `intelgraph lag`", "yellow")
