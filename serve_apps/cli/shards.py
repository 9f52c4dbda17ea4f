"""`shards`: which there are, and who owns which buckets. Cases with data stay where they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import Rejected
from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import group, verb

if TYPE_CHECKING:
    from cluster.shard_map import ShardMap

ShardId = Annotated[str, typer.Argument(help="The shard's id.")]


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


def add(session: Session) -> None:
    """Start one more embedded shard; it takes its share of the buckets that hold no data."""
    from cluster.shard_map import adopt_empty
    from serve_apps.cli.embedded_shard import start_shard

    session.require_node()
    current = session.stack.current_map()
    empty = empty_buckets(session, current)
    shard_id = f"shard-{len(session.control.shards.list())}"
    with session.output.waiting(f"starting {shard_id}"):
        start_shard(session, shard_id)
    new = adopt_empty(current, shard_id, empty)
    if shard_id in new.shards:
        session.control.shard_maps.publish(current.revision, new, time.time(), "intelgraph shards add")
    taken = len(new.buckets_of(shard_id))
    revision = new.revision if taken else current.revision
    session.output.result({"shard": shard_id, "buckets": taken, "revision": revision})
    session.output.text(f"{shard_id} has {taken:,} of 4,096 buckets; cases with data stay where they are")


def empty_buckets(session: Session, current: ShardMap) -> set[int]:
    """Buckets that hold no case on their owner, read while no shard is behind the log. Raises Unavailable."""
    from cluster.ids import BUCKETS, bucket_of
    from serve_apps.cli.conservation import settled

    settled(session, 60.0)
    used = {bucket_of(tenant, case) for shard in session.shards.values() for tenant, case in shard.cases()}
    return set(range(BUCKETS)) - used


def drain(session: Session, shard_id: ShardId) -> None:
    """Take all buckets from a shard. Refused while it holds data, because cases cannot be moved yet."""
    from cluster.shard_map import drain as without
    from serve_apps.cli.conservation import settled

    current = session.stack.current_map()
    if shard_id not in current.shards:
        session.control.shards.get(shard_id)
        session.output.result({"shard": shard_id, "buckets": 0, "revision": current.revision})
        session.output.text(f"{shard_id} owns no bucket already")
        return
    settled(session, 60.0)
    held = session.shards[shard_id].cases()
    if held:
        raise Rejected(
            f"{shard_id} holds {len(held):,} cases: draining it would need their data moved, and this version cannot"
            " move cases. It can be drained while it holds none."
        )
    new = without(current, shard_id)
    session.control.shard_maps.publish(current.revision, new, time.time(), "intelgraph shards drain")
    session.control.shards.set_state(shard_id, session.control.shards.get(shard_id).state, "draining", time.time())
    session.output.result({"shard": shard_id, "buckets": 0, "revision": new.revision})
    session.output.text(f"{shard_id} owns no bucket any more; its server stays until the system stops")
