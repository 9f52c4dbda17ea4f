"""Opens the stores of one installation: what every actor, command and API process starts from.

stack = Stack(settings)      # opens nothing yet
stack.control                # the control store, opened once a process
stack.open_log()             # a connection of one's own; likewise open_shard(id), open_lake()
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from cluster import shard_map
from cluster.config import Settings
from cluster.embedded.layout import server_spec
from cluster.embedded.passwords import load_passwords
from cluster.embedded.spec import Role
from cluster.errors import Rejected, Unavailable
from cluster.shard_map import ShardMap
from cluster.stores.control import ControlStore, control_url, open_control
from cluster.stores.control_journal import ControlJournal
from cluster.stores.falkor import FalkorClient
from cluster.stores.lake_address import LakeAddress
from cluster.stores.log import EventLog
from cluster.stores.open_log import open_control_log, open_log
from cluster.stores.open_shard import is_neo4j, open_client, open_shard
from cluster.stores.places import FilePlace, open_place
from cluster.stores.redis_address import RedisAddress
from cluster.stores.shard import StoredShard
from cluster.telemetry.logs import NODE_LOG, append_to

if TYPE_CHECKING:
    from cluster.stores.lake import Lake
    from cluster.stores.neo4j_client import Neo4jClient


@dataclass
class Stack:
    """The stores that a configuration names. Not shared between processes: a child opens its own."""

    settings: Settings
    _opened: list[object] = field(default_factory=list)

    @property
    def state_dir(self) -> Path:
        """Where this installation keeps everything, absolute."""
        return self.settings.state_dir.resolve()

    def log_as(self, actor: str, **fields: Any) -> None:
        """Send this process's logs to the node's log, as those of an actor. Safe to call twice."""
        append_to(self.state_dir / NODE_LOG, actor=actor, pid=os.getpid(), **fields)

    @cached_property
    def control(self) -> ControlStore:
        """The control store. While the installation is up, its changes go to the log's control partition first."""
        journal = ControlJournal(self.open_control_log, self.settings.log.entry_bytes)
        settings, hours = self.settings.control, self.settings.ingest.idempotency_hours
        return open_control(control_url(settings, self.state_dir), hours, settings.busy_timeout_s, journal)

    @cached_property
    def password(self) -> SecretStr:
        """The application's password of log, cache and shards."""
        return load_passwords(self.state_dir / "secrets.json").application

    def open_log(self, *, mending: bool = False) -> EventLog:
        """A connection to the event log; see `open_log.open_log`."""
        spec = server_spec(self.state_dir, Role.LOG, "log", 0)
        return open_log(
            self.settings.log, RedisAddress(socket=str(spec.socket), password=self.password), mending=mending
        )

    def open_control_log(self) -> EventLog:
        """A connection to the log's control partition: a log of its own, on the same servers."""
        spec = server_spec(self.state_dir, Role.LOG, "log", 0)
        return open_control_log(self.settings.log, RedisAddress(socket=str(spec.socket), password=self.password))

    def open_client(self, shard_id: str, timeout_s: float | None = None) -> FalkorClient | Neo4jClient:
        """A connection to a registered shard."""
        settings, uri = self.settings.shards, self.control.shards.get(shard_id).uri
        return open_client(uri, settings, self.password, timeout_s or settings.timeout_s)

    def open_shard(self, shard_id: str, timeout_s: float | None = None) -> StoredShard:
        """A shard, on a connection of its own."""
        return open_shard(self.open_client(shard_id, timeout_s), self.settings.shards)

    def open_lake(self) -> Lake:
        """The lake; created where there is none."""
        from cluster.stores.lake import Lake

        return Lake.open(self.state_dir / "lake", settings=self.settings.lake)

    @property
    def snapshots(self) -> FilePlace:
        """Where snapshots lie."""
        return open_place(self.settings.snapshots, self.state_dir / "snapshots")

    @property
    def lake_address(self) -> LakeAddress:
        """Where the lake is, for whoever opens it only if it is there."""
        return LakeAddress(self.state_dir / "lake", self.settings.lake)

    def current_map(self) -> ShardMap:
        """The shard map.

        Raises:
            Unavailable: the system was never started.
        """
        found = self.control.shard_maps.current()
        if found is None:
            raise Unavailable("there is no shard map yet: start the system with `intelgraph up`")
        return found

    def embedded_shards(self) -> list[str]:
        """Ids of the registered shards whose servers are this installation's own."""
        own = str(server_spec(self.state_dir, Role.SHARD, "shard-0", 0).socket.parent)
        return [s.id for s in self.control.shards.list() if s.uri.startswith(f"unix://{own}/")]

    def external_shards(self) -> list[str]:
        """Ids of the registered shards that own buckets and whose servers are not this installation's own."""
        owners = set(self.current_map().shards)
        return [s.id for s in self.control.shards.list() if s.id in owners and is_neo4j(s.uri)]

    def register_embedded(self) -> list[str]:
        """Register the embedded shards that the settings want; their ids. Safe to call twice."""
        names = [f"shard-{n}" for n in range(self.settings.shards.embedded)]
        now = time.time()
        for name in names:
            spec = server_spec(self.state_dir, Role.SHARD, name, 0)
            self.control.shards.register(name, f"unix://{spec.socket}", now)
        return names

    def publish_first_map(self, names: Sequence[str]) -> None:
        """Share the buckets out to these shards, where there is no map yet. Safe to call twice.

        Raises:
            Rejected: there is none.
        """
        if self.control.shard_maps.current() is None:
            if not names:
                raise Rejected("there has to be a shard: set shards.embedded, or shards.external to a Neo4j's address")
            first = shard_map.initial(names, self.settings.log.partitions)
            self.control.shard_maps.publish(0, first, time.time(), "intelgraph up")
