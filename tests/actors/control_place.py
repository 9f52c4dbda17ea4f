"""An installation's control store with its control partition, on each kind of log and of store, and work for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from actors import control_recovery as recovery
from actors.stack import Stack
from cluster import shard_map
from cluster.config import LogSettings, Settings
from cluster.config_control import ControlSettings
from cluster.config_kafka import KafkaSettings
from cluster.stores import control_changes as changes
from cluster.stores.control_dead_letters import NewDeadLetter
from cluster.stores.control_journal import PARTITION
from cluster.stores.log import EventLog
from cluster.stores.open_log import open_control_log
from cluster.stores.redis_address import RedisAddress
from tests.kafka_broker import KafkaBroker
from tests.postgres import PostgresServer

T, S = "tenant-1", "feed"
KINDS = ["redis", *(pytest.param(kind, marks=pytest.mark.production) for kind in ("kafka", "postgres"))]
"""The defaults, and either of the other log and the other store."""


class Installation(Stack):
    """A stack whose log is on a server of the run.

    Args:
        spoilt: what is done to a connection to the control partition before it is used.
    """

    where: tuple[LogSettings, RedisAddress, str]
    spoilt: Callable[[EventLog], EventLog] = staticmethod(lambda log: log)

    def open_control_log(self) -> EventLog:
        """See `Stack.open_control_log`."""
        return self.spoilt(open_control_log(*self.where))


@dataclass
class Place:
    """One installation's folder and log; what is opened here is closed at the end."""

    folder: Path
    log: tuple[LogSettings, RedisAddress, str]
    opened: list[Stack]
    control: ControlSettings = field(default_factory=ControlSettings)
    postgres: PostgresServer | None = None

    def open(self, spoilt: Callable[[EventLog], EventLog] | None = None) -> Installation:
        """A process's stack of the installation."""
        stack = Installation(Settings(state_dir=self.folder, log=self.log[0], control=self.control))
        stack.where = self.log
        if spoilt is not None:
            stack.spoilt = spoilt
        self.opened.append(stack)
        return stack

    def up(self) -> Installation:
        """A stack whose store is whole; the installation is up from then on."""
        stack = self.open()
        recovery.make_whole(stack)
        return stack

    def backup(self) -> str:
        """A copy of the store, as it is."""
        if self.postgres is not None:
            name = f"{self.control.database}b"
            self.postgres.create(name, self.control.database)
            return name
        with closing(self.open().control) as control:
            path = self.folder / "backup.db"
            path.unlink(missing_ok=True)
            control.database.copy_to(path)
        return str(path)

    def restore(self, copy: str | None) -> None:
        """Puts another one in the store's place; None: there is none any more."""
        for stack in self.opened:
            stack.control.close()
        if self.postgres is not None:
            self.postgres.create(self.control.database, copy or "template1")
            return
        for name in ("control.db", "control.db-wal", "control.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        if copy is not None:
            shutil.copy(copy, self.folder / "control.db")


@contextmanager
def place_of(request: pytest.FixtureRequest, tmp_path: Path, unique: str) -> Iterator[Place]:
    """An installation that was never up."""
    settings, address = LogSettings(partitions=2, timeout_s=5.0, block_ms=100), RedisAddress()
    if request.param == "kafka":
        broker: KafkaBroker = request.getfixturevalue("mortal_kafka")
        if not broker.running:
            broker.start()
        kafka = KafkaSettings(bootstrap=broker.bootstrap, replication_factor=1, min_in_sync=1, topic_prefix=unique)
        settings = settings.model_copy(update={"kind": "kafka", "kafka": kafka})
    else:
        server = request.getfixturevalue("log_server")
        address = RedisAddress(socket=str(server.socket), password=server.password)
    made = Place(tmp_path, (settings, address, unique), [])
    if request.param == "postgres":
        made.postgres = request.getfixturevalue("postgres")
        made.control = made.postgres.settings(unique)
        made.postgres.create(unique)
    yield made
    for stack in made.opened:
        stack.control.close()
    if made.postgres is not None:
        made.postgres.drop(unique)
        made.postgres.drop(f"{unique}b")


def state(stack: Stack) -> dict[str, list[Any]]:
    """Every row that a copy has to have, too."""
    with stack.control.database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr) for table in changes.covered()
        }


def work(stack: Stack, number: int) -> None:
    """Something in every table that matters."""
    control, now = stack.control, 1_000.0 + number
    for shard in ("shard-0", "shard-1"):
        control.shards.register(shard, f"unix:///{shard}", now)
        control.shards.raise_epoch(shard)
    current = control.shard_maps.current()
    if current is None:
        control.shard_maps.publish(0, shard_map.initial(["shard-0", "shard-1"], 2), now, "test")
    control.sources.register(T, S, now)
    control.sources.register(T, f"other-{number}", now)
    control.acceptance.accept(T, S, f"key-{number}", "hash", 10, now)
    control.dead_letters.add(T, [NewDeadLetter(S, 1, (number,), "decode", "bad", b"\x00\xff" * 100)], now)
    control.dead_letters.begin_replay(T, [control.dead_letters.list(T)[0].id], 5, now)
    control.runs.start(T, "louvain", "snapshot", now)
    stands = control.pointers.get("current")
    at = stands.sequence if stands else 0
    control.pointers.advance("current", at, at + 1, f"manifest-{number}", now)
    load = control.loads.start(T, S, f"digest-{number}", now)
    control.loads.commit(T, load.id, 0, 0, 50, acked=50)
    if number % 2:
        control.loads.end(T, load.id, "done", now)
    token = control.leases.acquire("lease", "me", 10.0, now)
    control.leases.renew("lease", token, 10.0, now + 1)
    control.names.register(T, "property_name", [f"name-{number}"], 100)
    control.audit.append(T, "me", "work", S, now, {"number": number})
    control.positions.register("shard-0", [0, 1], now)
    control.positions.report_durable("shard-0", {0: number, 1: number}, now)


def ends(place: Place) -> int:
    """The last entry of the control partition."""
    with closing(place.open().open_control_log()) as log:
        return log.ends()[PARTITION]
