"""A Neo4j shard that answers late at the first start, and one that was emptied while nobody had its lease."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.external_shards import register_first
from actors.ownership import paused
from actors.stack import Stack
from cluster.config import LogSettings, Settings, ShardSettings
from cluster.embedded import Role, ensure, kill_server, server_spec
from cluster.stores import neo4j_tenure
from cluster.stores.shard_owner import Owner
from tests.fault_proxy import FaultProxy, Faults
from tests.graph_stores import Neo4jStore

pytestmark = [pytest.mark.services, pytest.mark.production]
SHARD = "neo4j-0"


@pytest.fixture
def stack(service: Callable[[str], Any], neo4j_store: Neo4jStore, server_root: Path) -> Iterator[Stack]:
    """An installation whose only shard is a Neo4j; a log, and nothing else, runs."""
    neo4j_store.fresh()
    server, folder = service(SHARD), server_root / "ees"
    folder.mkdir(mode=0o700)
    (folder / "password").write_text(server.details["password"])
    shards = ShardSettings(embedded=0, external=(server.address,), neo4j_password_file=folder / "password")
    made = Stack(Settings(state_dir=folder, shards=shards, log=LogSettings(partitions=2)))
    spec = server_spec(made.state_dir, Role.LOG, "log", 1 << 28)
    ensure(spec, None)
    with closing(made.open_log()) as log:
        made.control.positions.bind_log(log.identity)  # as a start does
    made.publish_first_map(register_first(made))
    yield made
    kill_server(spec)
    made.control.close()
    neo4j_store.fresh()


def test_one_that_answers_late_at_the_first_start_is_waited_for(
    service: Callable[[str], Any], neo4j_store: Neo4jStore, server_root: Path
) -> None:
    neo4j_store.fresh()
    server, folder = service(SHARD), server_root / "late"
    folder.mkdir(mode=0o700)
    (folder / "password").write_text(server.details["password"])
    port = int(server.address.rpartition(":")[2])
    with FaultProxy.tcp(("127.0.0.1", port)) as proxy:
        proxy.set(Faults(refuse=True))
        address = f"{server.address.rpartition(':')[0]}:{proxy.address[1]}"
        shards = ShardSettings(embedded=0, external=(address,), neo4j_password_file=folder / "password")
        made = Stack(Settings(state_dir=folder, shards=shards, log=LogSettings(partitions=2)))
        spec = server_spec(made.state_dir, Role.LOG, "log", 1 << 28)
        ensure(spec, None)
        later = threading.Timer(2.0, proxy.heal)
        later.start()
        try:
            assert register_first(made) == [SHARD]
        finally:
            later.join()
            kill_server(spec)
            made.control.close()
    neo4j_store.fresh()


def test_it_is_not_left_without_an_owner(stack: Stack, neo4j_store: Neo4jStore) -> None:
    log = stack.open_log()
    ours = Owner(log.identity.name, SHARD)
    log.close()
    epoch = stack.control.shards.raise_epoch(SHARD)
    client = neo4j_store.client(neo4j_store.fresh())
    assert neo4j_tenure.standing(client).owner is None
    with paused(stack, [SHARD]):
        standing = neo4j_tenure.standing(client)
        assert (standing.owner, standing.raised) == (ours, epoch)
    client.close()
