"""Which servers the embedded default has, and where each lives in a state directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cluster.embedded.paths import private_folder, socket_folder
from cluster.embedded.spec import Role, ServerSpec
from cluster.errors import Rejected

SHARDS_MAX = 64


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Most memory of each server, bytes; 0 is unbounded.

    Args:
        log: has to exceed the log's own bound: over that push is refused in order, over this Redis refuses.
        shard: a shard over it refuses writes and its cursors stop; reads go on.
        shard_query: a query over it ends with an error and leaves nothing behind.
    """

    log: int = 3 << 30
    cache: int = 256 << 20
    shard: int = 0
    shard_query: int = 1 << 30


def server_spec(
    state_dir: Path, role: Role, name: str, max_memory_bytes: int, query_memory_bytes: int = 0
) -> ServerSpec:
    """The spec of one server of a state directory; creates the private folders above it."""
    state_dir = private_folder(state_dir.resolve())
    return ServerSpec(
        role=role,
        name=name,
        folder=private_folder(state_dir / "servers") / name,
        socket=socket_folder(state_dir) / f"{name}.sock",
        secrets=state_dir / "secrets.json",
        max_memory_bytes=max_memory_bytes,
        threads=max(2, min(8, os.cpu_count() or 2)),
        query_memory_bytes=query_memory_bytes,
    )


def stack(state_dir: Path, shards: int, memory: MemoryLimits = MemoryLimits()) -> dict[str, ServerSpec]:
    """All servers by name, in the order in which to start them: `log`, `cache`, `shard-0` and so on.

    Raises:
        Rejected: the number of shards is out of range, or the state directory is not fit.
    """
    if not 0 <= shards <= SHARDS_MAX:
        raise Rejected(f"{shards} embedded shards: choose from 0 to {SHARDS_MAX}")
    specs = [
        server_spec(state_dir, Role.LOG, "log", memory.log),
        server_spec(state_dir, Role.CACHE, "cache", memory.cache),
        *(
            server_spec(state_dir, Role.SHARD, f"shard-{number}", memory.shard, memory.shard_query)
            for number in range(shards)
        ),
    ]
    return {spec.name: spec for spec in specs}
