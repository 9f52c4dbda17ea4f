"""What the node does to a server that has loaded its files and lets nobody in yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from actors.log_damage import check_tail
from actors.stack import Stack
from cluster import dialect_shard
from cluster.databases import FALKORDB
from cluster.embedded import Role, Running, ServerSpec
from cluster.embedded.server import BeforeServing
from cluster.errors import Rejected
from cluster.ids import BUCKETS
from cluster.stores.falkor import GRAPH
from cluster.stores.falkor_text import header
from cluster.stores.shard_owner import Owner, refuse_other
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.node")


def raise_epoch_before_serving(opened: Stack, spec: ServerSpec) -> BeforeServing | None:
    """For a shard: raise its epoch in the registry and in the shard itself before anybody is let in.

    Its checkpoint is a file that anybody may have put there. Refused (`Rejected`) is one of another shard, of this
    installation or of another, and one of a later time than the registry: log and registry were set back behind it, and
    what came since then has its numbers.
    """
    if spec.role is not Role.SHARD:
        return None

    def raise_it(running: Running, operator: Any) -> None:
        name = running.spec.name
        query = partial(operator.execute_command, "GRAPH.QUERY", GRAPH)
        owner = Owner(_log_name(opened), name)
        _check_checkpoint(spec, query, owner, opened.control.shards.get(name).epoch)
        epoch = opened.control.shards.raise_epoch(name)
        query(header({"epoch": epoch, "none": "0" * BUCKETS}) + dialect_shard.raise_epoch(FALKORDB))
        query(header(owner._asdict()) + dialect_shard.note_owner(FALKORDB))
        LOG.info("shard_epoch_raised", shard=name, epoch=epoch)

    return raise_it


def _check_checkpoint(spec: ServerSpec, query: Callable[[str], Any], wanted: Owner, registered: int) -> None:
    """Raises Rejected where the server has loaded what is not this shard's."""
    what, todo = f"the checkpoint {spec.dump_file}", f"put one of {wanted.name} in its place, or none"
    said = query(dialect_shard.OWNER)[1]
    if not said:
        if query(dialect_shard.FOREIGN)[1]:
            raise Rejected(f"{what} is no shard's: {todo}")
        return
    log, name, raised = said[0]
    if log is None:
        LOG.warning("checkpoint_without_owner", shard=wanted.name, reason="it names none, and is taken for its own")
    refuse_other(what, Owner(log, name) if log is not None else None, wanted, own=todo, other=todo)
    if raised is not None and raised > registered:
        raise Rejected(
            f"{what} is of a later time than the control store (epoch {raised}, there {registered}), which was set "
            f"back behind it: {todo}"
        )


def _log_name(opened: Stack) -> str:
    """Of the event log that shards are filled from."""
    bound = opened.control.positions.newest_log()  # the log itself may be opened by nobody yet
    if bound is not None:
        return bound.name
    with closing(opened.open_log()) as log:
        return log.identity.name


def check_before_serving_again(opened: Stack, spec: ServerSpec) -> BeforeServing | None:
    """For a server that is started again while others work: as `raise_epoch_before_serving`; and nobody is let into a
    log that has lost its tail, since appends would take the numbers of what is lost."""
    if spec.role is not Role.LOG:
        return raise_epoch_before_serving(opened, spec)
    return lambda running, operator: check_tail(opened, operator)
