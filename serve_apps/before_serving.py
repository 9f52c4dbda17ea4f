"""What the node does to a server that has loaded its files and lets nobody in yet."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

from actors.log_damage import check_tail
from actors.stack import Stack
from cluster import dialect_shard
from cluster.databases import FALKORDB
from cluster.embedded import Role, Running, ServerSpec
from cluster.embedded.server import BeforeServing
from cluster.ids import BUCKETS
from cluster.stores.falkor import GRAPH
from cluster.stores.falkor_text import header
from cluster.stores.shard_tenant import Tenant, refuse_other
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.node")


def raise_epoch_before_serving(opened: Stack, spec: ServerSpec) -> BeforeServing | None:
    """For a shard: raise its epoch in the registry and in the shard itself before anybody is let in.

    Its checkpoint is a file: one of another shard is refused, of this installation or of another (`Rejected`).
    """
    if spec.role is not Role.SHARD:
        return None

    def raise_it(running: Running, operator: Any) -> None:
        name = running.spec.name
        query = partial(operator.execute_command, "GRAPH.QUERY", GRAPH)
        wanted, found = Tenant(_log_name(opened), name), query(dialect_shard.TENANT)[1]
        todo = f"put one of {name} in its place, or none"
        other = Tenant(*found[0]) if found else None
        refuse_other(f"the checkpoint {spec.dump_file}", other, wanted, own=todo, other=todo)
        epoch = opened.control.shards.raise_epoch(name)
        query(header({"epoch": epoch, "none": "0" * BUCKETS}) + dialect_shard.raise_epoch(FALKORDB))
        query(header(wanted._asdict()) + dialect_shard.note_tenant(FALKORDB))
        LOG.info("shard_epoch_raised", shard=name, epoch=epoch)

    return raise_it


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
