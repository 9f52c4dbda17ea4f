"""The change history of ATT&CK through a whole installation whose shards are two Neo4j and whose log is in Kafka.

PostgreSQL → Debezium → Kafka → stream workers → log (Kafka) → shard writers → two Neo4j. The history is written as real
INSERTs, UPDATEs and DELETEs; on the way the connector, the stream workers, a shard and the broker are killed. What the
installation has in the end is what the changes come to, one after the other.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cluster.fold import hash_lines
from services.runner import Services
from services.spec import NotInstallable, Running
from tests.cdc.capture import TABLES
from tests.cdc.captured import CapturedDatabase
from tests.faults.harness import wait_until
from tests.graph_stores import Neo4jStore
from tests.history.captured_history import Change, Play, changes_of, differing, held, meant, rows_of, some
from tests.history.test_attack_history import Row, rows
from tests.kafka_topics import Topic
from tests.serve_apps.cli.installation import Installation, temporary
from tests.serve_apps.cli.stream_worker_processes import Started, kill, stream_workers
from tests.serve_apps.cli.test_neo4j_shards_end_to_end import CASES, facts

__all__ = ["rows"]

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(1800)]
SHARDS = ("neo4j-0", "neo4j-1")
OPERATIONS = ("create", "update", "delete")
PATIENCE_S = 300.0
"""Of a busy machine."""


@pytest.fixture(scope="module")
def graphs(service: Callable[[str], Running], production: Services) -> Iterator[list[Running]]:
    """Two Neo4j, empty before and after."""

    def empty() -> list[Running]:
        servers = [service(name) for name in SHARDS]
        for server in servers:
            Neo4jStore(server.address, server.details["user"], SecretStr(server.details["password"])).fresh()
        return servers

    yield empty()
    empty()
    production.stop(SHARDS[1])  # other tests want one


@pytest.fixture(scope="module")
def installation(
    graphs: list[Running], service: Callable[[str], Running], production: Services
) -> Iterator[Installation]:
    """Its only shards are the two Neo4j, its log is the run's Kafka."""
    bootstrap, first = service("kafka").address, production.folder / SHARDS[0]
    config = {
        "shards": {
            "embedded": 0, "external": [checked(graph) for graph in graphs],
            "neo4j_password_file": str(first / "password"), "neo4j_ca_file": graphs[0].details["ca"],
        },
        "log": {
            "kind": "kafka", "partitions": 4,
            "kafka": {"bootstrap": bootstrap, "topic_prefix": f"log-{uuid.uuid4().hex[:8]}",
                      "replication_factor": 1, "min_in_sync": 1},
        },
        "streams": {"kafka": {"bootstrap": bootstrap}, "workers_min": 2, "lease_s": 3.0},
    }  # fmt: skip
    with temporary(config=config) as made:
        yield made


def checked(graph: Running) -> str:
    """Its address; its certificate is checked."""
    return graph.address.replace("+ssc", "+s")


def test_it_is_up_with_two_neo4j_and_no_shard_of_its_own(
    installation: Installation, graphs: list[Running], tmp_path: Path
) -> None:
    run, addresses = installation.run, [checked(graph) for graph in graphs]
    run("up")
    listed = {row["id"]: (row["kind"], row["address"], row["buckets"]) for row in run("shards", "list")["shards"]}
    assert listed == {name: ("neo4j", at, 2_048) for name, at in zip(SHARDS, addresses, strict=True)}
    assert [server["name"] for server in run("status")["servers"]] == ["cache"]
    (load,) = run("ingest", facts(tmp_path), "-t", "acme")["loads"]
    assert (load["applied"], load["missing"]) == (3 * CASES, 0)
    assert {row["shard"] for row in run("audit")["shards"] if row["applied"]} == set(SHARDS)
    before = run("hash"), run("hash", "--state")
    run("down")
    assert run("status", exit_code=3)["up"] is False

    up = run("up")
    headers = {"authorization": f"Bearer {up['token']}"}
    with httpx.Client(base_url=up["api"], headers=headers, timeout=60.0, trust_env=False) as api:
        for path in ("/readyz", "/v1/cases", "/v1/shards"):
            wait_until(lambda path=path: api.get(path).status_code == 200, 60.0, path)  # type: ignore[misc]
        wait_until(lambda: not api.get("/v1/cases").json().get("missing"), 60.0, "both shards serve")
        assert set(api.get("/readyz").json()["parts"]) == {"log", *SHARDS}
        assert len(api.get("/v1/cases").json()["items"]) == CASES
        answer = api.get("/v1/shards")
    shown = [(row["id"], row["kind"], row["address"], row["buckets"]) for row in answer.json()["items"]]
    assert shown == [(name, "neo4j", at, 2_048) for name, at in zip(SHARDS, addresses, strict=True)]
    assert not any(graph.details["password"] in answer.text for graph in graphs)
    assert run("audit")["holds"]  # it waits until the shards have what the log has
    assert (run("hash"), run("hash", "--state")) == before
    assert before[0]["lines"] == 3 * CASES


@pytest.fixture
def database(rows: list[Row], production: Services, unique: str) -> Iterator[CapturedDatabase]:
    """A captured database of this test's own; its connector is not there yet."""
    try:
        made = CapturedDatabase(production, unique)
    except NotInstallable as error:
        pytest.skip(f"connect: {error}")
    yield made
    production.start("kafka")
    made.close()


class Captured:
    """What is captured from a database into an installation: a stream for each table."""

    def __init__(self, installation: Installation, production: Services, database: CapturedDatabase) -> None:
        self.run, self._installation = installation.run, installation
        self._services, self._database, self._workers = production, database, dict[str, Started]()
        self._streams = {f"{database.name}/{table}": database.topic(table) for table in TABLES}

    def follow(self, tenants: Sequence[str]) -> None:
        """Read every table's topic; those of tables that nobody has written to yet are not there by themselves."""
        named = [word for tenant in tenants for word in ("--tenant", tenant)]
        for name, topic in self._streams.items():
            table = name.rpartition("/")[2]
            Topic(self._database.broker, topic)
            self.run("streams", "add", name, "--topic", topic, "--format", "debezium", "--table", table, *named)
        self._database.connect()

    def streams(self) -> list[dict[str, Any]]:
        """As they are listed."""
        return [stream for stream in self.run("streams", "list")["streams"] if stream["name"] in self._streams]

    def has_read(self, records: float) -> bool:
        """Whether so many records are in the log."""
        return sum(stream.get("acked", 0) for stream in self.streams()) >= records

    def exported(self, tenant: str) -> list[str]:
        """The tenant's visible graph."""
        return self._installation.typed("export", "--tenant", tenant).stdout.splitlines()

    def forget(self) -> None:
        """Read no more."""
        for name in self._streams:
            self.run("streams", "remove", name)

    # --- faults: each kills something when it is called, and what it returns brings it back

    @property
    def faults(self) -> list[Callable[[], Callable[[], object]]]:
        """Each once."""
        return [self.kill_connector, self.kill_stream_workers, self.kill_shard, self.kill_broker]

    def look(self) -> None:
        """Who could be killed; takes a while, so that it is done before there is work."""
        self._workers = stream_workers(self.run)

    def kill_connector(self) -> Callable[[], object]:
        """Connect with the connector in it: what was sent and not noted is sent again."""
        self._services.kill("connect")
        return self._database.kill_worker

    def kill_stream_workers(self) -> Callable[[], object]:
        """All of them; Ray starts others."""
        assert kill(self._workers)
        return list

    def kill_shard(self) -> Callable[[], object]:
        """A shard's server."""
        self._services.kill(SHARDS[1])
        return partial(self._services.start, SHARDS[1])

    def kill_broker(self) -> Callable[[], object]:
        """The one broker: of the topics that are read, and of the log."""
        self._services.kill("kafka")
        return partial(self._services.start, "kafka")


def of(lines: Sequence[str], tenant: str) -> list[str]:
    """A tenant's lines."""
    return [line for line in lines if json.loads(line)["tenant"] == tenant]


def capture(captured: Captured, database: CapturedDatabase, changes: Sequence[Change], rounds: int) -> None:
    """Write the changes; capture them while, in each round, all is killed once; compare."""
    run, fold = captured.run, meant(changes)
    tenants = sorted({change.record.tenant for change in changes})
    lines = fold.export_lines()
    expected = {tenant: hash_lines(of(lines, tenant)) for tenant in tenants}
    run("up")
    owners = run("shards", "list")
    assert len(owners["shards"]) == len(SHARDS)
    with database.session() as session:
        play = Play(session, changes)
        play.to(0.1)
        captured.follow(tenants)
        wait_until(lambda: captured.has_read(1), PATIENCE_S, "the initial snapshot is read")
        faults = captured.faults * rounds
        for number, fault in enumerate(faults):
            begin, end = (0.1 + 0.9 * at / len(faults) for at in (number, number + 1))
            captured.look()
            play.to((begin + end) / 2)
            back = fault()
            play.to(end)
            back()
            before = 0.9 * len(changes) * (begin + end) / 2
            wait_until(partial(captured.has_read, before), PATIENCE_S, f"{fault.__name__}: it is read on")
    assert rows_of(database.rows()) == held(fold), "PostgreSQL has taken every change"

    def equal() -> bool:
        with suppress(AssertionError):  # a command that has to be said again
            return {tenant: run("hash", "-t", tenant)["sha256"] for tenant in tenants} == expected
        return False

    with suppress(AssertionError):
        wait_until(lambda: not any(stream.get("lag_records") for stream in captured.streams()) and equal(), PATIENCE_S)
    for tenant in tenants:
        assert differing(of(lines, tenant), captured.exported(tenant)) == ([], []), captured.streams()
        assert run("hash", "-t", tenant)["sha256"] == expected[tenant]
        assert run("dlq", "list", "-t", tenant)["dead_letters"] == []
    balance = run("audit")
    assert balance["holds"], balance
    assert all(row["applied"] for row in balance["shards"]), "both shards have taken part"
    captured.forget()


def test_a_part_of_the_history_is_captured_whatever_is_killed(
    rows: list[Row], installation: Installation, production: Services, database: CapturedDatabase
) -> None:
    changes = changes_of(some(rows, 16), suffix="-few")
    assert {(change.op, change.table) for change in changes} == {(o, t) for o in OPERATIONS for t in TABLES}
    capture(Captured(installation, production, database), database, changes, rounds=1)


@pytest.mark.chaos
def test_the_whole_history_is_captured_whatever_is_killed(
    rows: list[Row], installation: Installation, production: Services, database: CapturedDatabase
) -> None:
    capture(Captured(installation, production, database), database, changes_of(rows), rounds=2)
