"""A Neo4j that comes back without us, in each state that it can be in: it heals from the log, and serves only then."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.external_shards import Keeper, register_first
from actors.push import Push
from actors.shard_writer_actor import ShardWriterLoop
from actors.stack import Stack
from cluster.config import LogSettings, Settings, ShardSettings
from cluster.embedded import Role, ensure, kill_server, server_spec
from cluster.errors import IntelGraphError
from services.runner import Services

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.chaos]
NAME, SHARD = "neo4j-1", "neo4j-0"


class Alone:
    """One shard in Neo4j, its writer and its keeper as threads, and a log. No embedded shard, no Ray."""

    def __init__(self, folder: Path, server: Any) -> None:
        folder.mkdir(mode=0o700)
        (folder / "password").write_text(server.details["password"])
        shards = ShardSettings(
            embedded=0, external=(server.address.replace("+ssc", "+s"),), lease_s=2.0, checkpoint_s=0.2, timeout_s=5.0,
            neo4j_password_file=folder / "password", neo4j_ca_file=Path(server.details["ca"]),
        )  # fmt: skip
        self.settings = Settings(state_dir=folder, shards=shards, log=LogSettings(partitions=2, block_ms=50))
        self.stack = Stack(self.settings)
        self.spec = server_spec(self.stack.state_dir, Role.LOG, "log", 1 << 28)
        ensure(self.spec, None)
        self.log = self.stack.open_log()
        self.stack.publish_first_map(register_first(self.stack))
        self.writer, self.keeper = (
            ShardWriterLoop(self.stack, SHARD),
            Keeper(self.stack, SHARD, self.log.identity.name),
        )
        self.stopping = threading.Event()
        targets: list[Callable[[], None]] = [self.writer.run, lambda: self.keeper.run(self.stopping)]
        self.threads = [threading.Thread(target=target) for target in targets]
        for thread in self.threads:
            thread.start()
        self.stack.control.sources.register("acme", "crm", time.time())
        self.push = Push(self.stack.control, self.log, self.settings)

    def close(self) -> None:
        self.stopping.set()
        self.writer.stop()
        for thread in self.threads:
            thread.join(30)
        self.log.close()
        kill_server(self.spec)
        self.stack.control.close()

    def add(self, prefix: str, number: int = 40) -> None:
        events = [
            {"source": "crm", "case": f"c{n % 5}", "kind": "entity", "op": "upsert", "type": "person",
             "id": f"{prefix}{n}", "props": {"n": n}}
            for n in range(number)
        ]  # fmt: skip
        self.push.push("acme", ["crm"], json.dumps(events).encode(), "application/json", None)

    @property
    def epoch(self) -> int:
        return self.stack.control.shards.get(SHARD).epoch

    def held(self) -> int:
        """Entities that a reader of the registry's epoch is shown; -1 where it is not let in."""
        guarded = "MATCH (m:_Shard) WHERE m.epoch = $epoch AND (m.until IS NULL OR m.until > timestamp()) "
        try:
            with closing(self.stack.open_client(SHARD, 3.0)) as client:
                found = client.read(f"{guarded}RETURN COUNT {{ MATCH (x:Entity) }}", {"epoch": self.epoch})
        except IntelGraphError:
            return -1
        return int(found[0][0]) if found else -1

    def wait_for(self, entities: int, deadline_s: float = 60.0) -> set[int]:
        """Until readers are shown so many; returns what they were shown until then."""
        end, seen = time.monotonic() + deadline_s, set[int]()
        while entities not in seen:
            assert time.monotonic() < end, (seen, self.writer.status)
            seen.add(self.held())
            time.sleep(0.05)
        return seen


@pytest.fixture
def alone(production: Services, service: Callable[[str], Any]) -> Iterator[Alone]:
    service(NAME)
    production.stop(NAME)  # an empty database, whatever was in it
    _forget(production)
    folder = Path(tempfile.mkdtemp(prefix="ig"))
    found = Alone(folder / "s", production.start(NAME))
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder)
        production.stop(NAME)
        _forget(production)


def _forget(production: Services) -> None:
    for part in ("databases", "transactions"):
        shutil.rmtree(production.folder / NAME / "data" / part / "neo4j", ignore_errors=True)


def _files(production: Services, folder: Path, *, back: bool) -> None:
    """A backup of the database's files while its server is down, or what was in one."""
    for part in ("databases", "transactions"):
        pair = [production.folder / NAME / "data" / part / "neo4j", folder / part]
        source, target = reversed(pair) if back else pair
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def test_it_heals_whatever_it_comes_back_as(alone: Alone, production: Services, tmp_path: Path) -> None:
    alone.add("first")
    alone.wait_for(40)
    production.stop(NAME)
    _files(production, tmp_path, back=False)
    alone.add("meanwhile")
    production.start(NAME)
    assert alone.wait_for(80) <= {-1, 80}, "it was away for longer than a lease"
    alone.add("later")
    alone.wait_for(120)
    before = alone.epoch
    positions = alone.stack.control.positions
    ends = alone.log.ends()
    _until(lambda: positions.of(SHARD) == ends)

    production.kill(NAME)
    _files(production, tmp_path, back=True)
    time.sleep(max(0.0, alone.settings.shards.lease_s))
    production.start(NAME)
    assert alone.wait_for(120) <= {-1, 120}, "nothing old is shown as of now"
    assert alone.epoch > before

    before = alone.epoch
    with closing(alone.stack.open_client(SHARD, 5.0)) as client:
        client.write("MATCH (n) DETACH DELETE n", {})
    assert alone.wait_for(120) <= {-1, 120}
    assert alone.epoch > before
    alone.add("last")
    alone.wait_for(160)
    _until(lambda: positions.of(SHARD) == alone.log.ends())


def _until(holds: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
