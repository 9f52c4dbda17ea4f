"""The same installation on the parts that production has: the log in Kafka, shards in Neo4j, loops as Ray actors.

    with ProductionInstallation(folder, broker, services) as system:
        system.start()
        …                                  # as with `Installation`; its shards are neo4j-0 and neo4j-1

Ray has to run already. Whatever was in the Neo4j servers is removed first: one at a time. The embedded cache, a Redis
as in every installation, is there too.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import neo4j

from actors.external_shards import Keeper, register, register_first
from actors.shard_writer_actor import WriterStatus
from cluster.config import LakeSettings, LogSettings, Settings, ShardSettings
from cluster.config_kafka import KafkaSettings
from cluster.embedded import Role, ensure, kill_server, server_spec
from cluster.embedded.passwords import write_private
from cluster.stores.log import EventLog
from cluster.stores.open_shard import open_client, open_shard
from cluster.stores.shard import StoredShard
from services.runner import Services
from services.spec import Running as Service
from tests.fault_proxy import FaultProxy
from tests.faults.harness import Fault, Installation
from tests.faults.memory import family, resident_bytes
from tests.faults.servers import MEMORY_BYTES
from tests.faults.supervised import START_S, Supervised
from tests.kafka_broker import KafkaBroker

_USER = "faults"
"""One user for all servers: an installation has one for its Neo4j shards, and each server draws its own password."""


class ProductionInstallation(Installation):
    """See the module."""

    stack_name = "production"
    deadline_s = 120.0

    def __init__(
        self, folder: Path, broker: KafkaBroker, services: Services, shards: int = 2, partitions: int = 4,
        lease_s: float = 2.0,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, mode=0o700)
        self.broker, self.services = broker, services
        if not broker.running:
            broker.start()
        names = [f"neo4j-{n}" for n in range(shards)]
        servers = [services.start(name) for name in names]
        password = secrets.token_urlsafe(16)
        for server in servers:
            _emptied(server, password)
        write_private(folder / "password", password)
        write_private(folder / "ca.pem", "".join(Path(server.details["ca"]).read_text() for server in servers))
        kafka = KafkaSettings(bootstrap=broker.bootstrap, replication_factor=1, min_in_sync=1, topic_prefix=folder.name)
        addresses = [server.address.replace("+ssc", "+s") for server in servers]
        self._addresses = dict(zip(names, addresses, strict=True))
        external = ShardSettings(
            embedded=0, external=tuple(addresses), lease_s=lease_s,
            checkpoint_s=0.5, timeout_s=15.0, neo4j_user=_USER, neo4j_password_file=folder / "password",
            neo4j_ca_file=folder / "ca.pem",
        )  # fmt: skip
        log = LogSettings(kind="kafka", kafka=kafka, partitions=partitions, block_ms=50, timeout_s=5.0, read_entries=32)
        settings = Settings(state_dir=folder, log=log, shards=external, lake=LakeSettings(commit_s=2.0))
        self._set_up(settings, names)
        self._cache = server_spec(self.stack.state_dir, Role.CACHE, "cache", MEMORY_BYTES)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.actors = Supervised(self.stack)

    # --- servers

    def start_servers(self) -> None:
        """Cache, log and shards; the first map."""
        ensure(self._cache, None)
        with closing(self.stack.open_log()) as log:
            self.stack.control.positions.bind_log(log.identity)
            name = log.identity.name
        self.stack.publish_first_map(register_first(self.stack))
        for shard in self.shard_ids:
            keeper = Keeper(self.stack, shard, name)
            self._thread(f"keep-{shard}", lambda keeper=keeper: keeper.run(self._stopping))
        self.recording.start()

    def restart(self, name: str) -> None:
        """Start a server that is down."""
        if name == "log":
            self.broker.start()
        else:
            self.services.start(name)
        self.recording.mark(f"{name} started", fault=False)

    def kill(self, name: str) -> None:
        """SIGKILL a server."""
        self.recording.mark(f"{name} killed")
        if name == "log":
            self.broker.kill()
        else:
            self.services.kill(name)

    def pid(self, name: str) -> int:
        """A running server's process."""
        if name == "log":
            return self.broker.pid
        found = self.services.find(name)
        assert found is not None, f"{name} does not run"
        return found.pid

    def memory_bytes(self) -> int:
        """What this process with Ray's, and the servers have in memory of their own."""
        servers = [self.pid(name) for name in self.shard_ids if self.services.find(name)]
        return resident_bytes(family([os.getpid(), *servers]))

    def checkpoint(self, shard: str, deadline_s: float = 0.0) -> None:
        """Nothing: what Neo4j has committed is on its disk."""

    def open_beside(self, name: str) -> StoredShard:
        settings = self.settings.shards
        return open_shard(open_client(self._addresses[name], settings, self.stack.password, 1.5), settings)

    def open_log_beside(self) -> EventLog:
        return self.stack.open_log()

    @contextmanager
    def behind_proxy(self, name: str) -> Iterator[FaultProxy]:
        """A proxy at a shard's registered address. Its writer and who keeps it go there at once; who asks, when he
        connects."""
        address = urlsplit(self._addresses[name])
        assert address.hostname and address.port
        with FaultProxy.tcp((address.hostname, address.port)) as proxy:
            proxy.told = self.told_of(name)
            host, port = proxy.address
            register(self.stack, name, f"{address.scheme}://{host}:{port}")
            try:
                yield proxy
            finally:
                register(self.stack, name, self._addresses[name])

    def end_servers(self) -> None:
        """Keepers and cache end; broker and databases are the run's, and stay."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(START_S)
        if "log" in self.__dict__:
            self.log.close()
        kill_server(self._cache)
        self.stack.control.close()

    # --- loops

    def start_loops(self, lake: bool = True) -> None:
        """Every actor; the lake's is among them."""
        self.actors.start()
        self.writers = {shard: _Writer(self.actors, shard) for shard in self.shard_ids}

    def loop_faults(self) -> dict[str, Fault]:
        """Actors' processes that are killed; the supervisor and Ray start them again."""

        def killed(rnd: random.Random, name: str) -> None:
            self.recording.mark(f"{name} killed")
            self.actors.kill(name)

        actors = ["lake-appender", *(f"shard-writer:{shard}" for shard in self.shard_ids)]
        return {f"{name} killed": partial(killed, name=name) for name in actors}

    def stop_loops(self) -> None:
        """End all actors in order."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(START_S)
        self.actors.stop()
        self.writers.clear()

    def _thread(self, name: str, run: Any) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)


class _Writer:
    """A writer's actor as tests look at a loop."""

    def __init__(self, actors: Supervised, shard: str) -> None:
        self._actors, self._shard = actors, shard

    @property
    def status(self) -> Any:
        """What it told last: as `WriterStatus`."""
        told = self._actors.status(f"shard-writer:{self._shard}")
        return SimpleNamespace(**{**vars(WriterStatus(self._shard)), **told})


def _emptied(server: Service, password: str) -> None:
    """Nothing in its database, and a user of ours."""
    auth = (server.details["user"], server.details["password"])
    with neo4j.GraphDatabase.driver(server.address, auth=auth) as driver:
        with driver.session(database="system") as session:
            session.run(
                f"CREATE USER {_USER} IF NOT EXISTS SET PASSWORD $first CHANGE NOT REQUIRED",
                first=secrets.token_urlsafe(16),
            )
            session.run(f"ALTER USER {_USER} SET PASSWORD $next CHANGE NOT REQUIRED", next=password).consume()
        with driver.session() as session:
            session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 2000 ROWS").consume()
