"""`shards`: which there are, and who owns which buckets. Cases with data stay where they are."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import Rejected
from serve_apps.cli.exits import Exit
from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, group, verb

if TYPE_CHECKING:
    from rich.progress import Progress

    from actors.rebuild import Progress as Rebuilding
    from actors.rebuild import Tell

ShardId = Annotated[str, typer.Argument(help="The shard's id.")]
Address = Annotated[
    str | None,
    typer.Argument(metavar="[URI]", help="Of an empty Neo4j database, bolt+s://host:port. [default: start a server]"),
]
Name = Annotated[str | None, typer.Option("--id", metavar="NAME", help="Of the shard at URI. [default: neo4j-N]")]
Wait = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    shards = group("Hot shards, and who owns which buckets.")
    app.add_typer(shards, name="shards", rich_help_panel="Running it")
    verb(shards, "list")(list_all)
    verb(shards, "add")(add)
    verb(shards, "drain")(drain)
    verb(shards, "rebuild")(rebuild)


def list_all(session: Session) -> None:
    """List the shards with their buckets, state and lag."""
    from cluster.stores.open_shard import kind_of, shown_address

    current = session.stack.current_map()
    rows = [
        {"id": s.id, "kind": kind_of(s.uri), "address": shown_address(s.uri), "role": s.role,
         "state": s.state, "buckets": len(current.buckets_of(s.id)), "epoch": s.epoch, "lag_records": s.lag_records,
         "lag_seconds": s.lag_seconds, "weight": s.weight, "reported": s.updated}
        for s in session.control.shards.list()
    ]  # fmt: skip
    session.output.result({"revision": current.revision, "partitions": current.partitions, "shards": rows})
    shown = [[*list(row.values())[:-1], moment(row["reported"])] for row in rows]  # type: ignore[arg-type]
    title = f"shards, map revision {current.revision}"
    session.output.table(title, list(rows[0]) if rows else ["id"], shown)


def add(
    session: Session, uri: Address = None, shard_id: Name = None, actor: ActorOption = "command line",
    timeout_s: Wait = 120.0,
) -> None:  # fmt: skip
    """Add a shard; it takes its share of the buckets that hold no case. Goes on where an earlier one stopped."""
    from actors import ownership

    if shard_id and uri is None:
        raise Rejected("--id is for a shard with an address: embedded ones have names of their own")
    session.require_node()
    with session.output.waiting("adding a shard") as tell:
        if uri is None:
            shard_id, new = ownership.add_shard(session.stack, timeout_s, tell)
        else:
            shard_id, new = ownership.add_external(session.stack, uri, shard_id, tell)
        _say(session, actor, "shard.add", shard_id, new.revision)
        tell("shards catch up with the log")
        behind = ownership.wait_serving(session.stack, new.shards, timeout_s)
    taken = len(new.buckets_of(shard_id))
    session.output.result({"shard": shard_id, "buckets": taken, "revision": new.revision, "behind": behind})
    session.output.text(f"{shard_id} has {taken:,} of 4,096 buckets; cases that were there before stay where they are")
    _say_behind(session, behind)


def drain(session: Session, shard_id: ShardId, actor: ActorOption = "command line", timeout_s: Wait = 120.0) -> None:
    """Take all buckets from a shard. Refused while it holds data, because cases cannot be moved yet."""
    from actors import ownership
    from cluster.stores.open_shard import is_neo4j

    session.require_node()
    stack = session.stack
    before = stack.current_map()
    with session.output.waiting(f"draining {shard_id}") as tell:
        new = ownership.take_out(stack, shard_id)
        _say(session, actor, "shard.drain", shard_id, new.revision)
        tell("shards catch up with the log")
        behind = ownership.wait_serving(stack, new.shards, timeout_s) if new != before else []
    given = len(before.buckets_of(shard_id))
    session.output.result({"shard": shard_id, "buckets": 0, "revision": new.revision, "given": given, "behind": behind})
    told = f"{shard_id} gave {given:,} buckets to the others" if given else f"{shard_id} owned no bucket already"
    address = session.control.shards.get(shard_id).uri
    left = (
        f"its data stays in {address}, where nothing is written any more" if is_neo4j(address)
        else "its server runs until the system stops, and is not started again"
    )  # fmt: skip
    session.output.text(f"{told}; {left}")
    _say_behind(session, behind)


def rebuild(
    session: Session,
    shard_id: ShardId,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all that it holds before and after, at the same log positions.")
    ] = False,
    actor: ActorOption = "command line",
    timeout_s: Wait = 120.0,
) -> int:
    """Empty a shard and fill it again from lake and log, while the others serve. Say it again where it was cut off."""
    from actors import ownership
    from actors.rebuild import rebuild as rebuild_shard
    from actors.rebuild import saved

    session.require_node()
    session.stack.log_as("rebuild", shard=shard_id)
    with session.output.progress() as bars:
        done = rebuild_shard(session.stack, shard_id, actor, verify=verify, tell=_bar(bars, shard_id))
    with session.output.waiting(f"{shard_id} catches up with what came in meanwhile"):
        behind = ownership.wait_serving(session.stack, [shard_id], timeout_s)
    with session.output.waiting(f"{shard_id} is saved"):
        on_disk = saved(session.stack, done, 0.0 if behind else timeout_s)
    rate = round(done.records / max(done.seconds, 1e-9))
    session.output.result(
        {**asdict(done), "records_per_s": rate, "verified": verify, "behind": behind, "saved": on_disk}
    )
    session.output.text(f"{shard_id} is rebuilt: {done.records:,} records in {done.seconds:.1f} s ({rate:,}/s)")
    if done.lines is not None:
        session.output.text(f"the same as before, at the same log positions: {done.lines:,} lines, {done.sha256}")
    _say_behind(session, behind)
    if not on_disk:
        again = "say it again if the shard is killed before its next checkpoint"
        session.output.text(f"it is not saved yet, and would come back as it was: {again}", "yellow")
    return Exit.RETRY if behind or not on_disk else Exit.DONE


def _bar(bars: Progress, shard_id: str) -> Tell:
    task = bars.add_task(f"rebuilding {shard_id}", total=None, detail="")

    def tell(now: Rebuilding) -> None:
        bars.update(task, description=f"{now.step} {shard_id}")
        if now.step == "healing":
            detail = f"{now.records:,} records, {now.records_per_s:,.0f}/s, {now.left:,} log entries left"
            bars.update(task, completed=now.entries, total=now.entries + now.left, detail=detail)

    return tell


def _say(session: Session, actor: str, action: str, shard_id: str, revision: int) -> None:
    from cluster.stores.control_audit import INSTALLATION

    session.control.audit.append(INSTALLATION, actor, action, shard_id, time.time(), {"revision": revision})


def _say_behind(session: Session, behind: list[str]) -> None:
    if behind:
        session.output.text(f"still catching up with the log: {', '.join(behind)}; see `intelgraph lag`", "yellow")
