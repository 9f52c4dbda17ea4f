"""One more embedded shard beside those that the node has started."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.embedded import MemoryLimits, Role, ensure, server_spec

if TYPE_CHECKING:
    from serve_apps.cli.session import Session


def start_shard(session: Session, shard_id: str) -> None:
    """Register a shard and start its server, with its epoch raised before anybody is let in. Safe to call twice.

    Raises:
        Unavailable: the server does not start.
    """
    from serve_apps.node import raise_epoch_before_serving

    memory = MemoryLimits()
    spec = server_spec(session.state_dir, Role.SHARD, shard_id, memory.shard, memory.shard_query)
    session.control.shards.register(shard_id, f"unix://{spec.socket}", time.time())
    ensure(spec, raise_epoch_before_serving(session.stack, spec))
