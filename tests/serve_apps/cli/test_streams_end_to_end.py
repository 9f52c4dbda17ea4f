"""An installation reads a topic: its workers and the broker are killed, records are removed unread; all is told.
Workers come with lag."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import select

from actors.workers_told import WorkersTold, told_workers
from cluster.stores.control import open_control
from cluster.stores.control_tables import leases
from services.runner import Services
from services.spec import Running
from tests.faults.harness import wait_until
from tests.faults.supervised import START_S
from tests.kafka_topics import Topic
from tests.serve_apps.cli.installation import Installation, temporary
from tests.serve_apps.cli.stream_worker_processes import kill, stream_workers

pytestmark = [pytest.mark.production, pytest.mark.slow, pytest.mark.timeout(600)]
PARTITIONS, RECORDS = 2, 2_000
SCALING = {
    "UP_LAG_RECORDS": "500", "UP_LOOKS": "1", "UP_PAUSE_S": "1", "UP_LAG_S": "1", "CORES_FREE": "0",
    "CATCH_UP_S": "1", "DOWN_LAG_RECORDS": "100", "DOWN_PAUSE_S": "600",
}  # fmt: skip
"""Workers come soon, and stay: which there are is asked for, and they are killed."""
UNREAD_MOST = 40_000
"""No more is sent ahead of who reads, however long a worker takes to start."""


@pytest.fixture(scope="module")
def installation(service: Callable[[str], Running]) -> Iterator[Installation]:
    """One to three stream workers, and the run's Kafka."""
    scaling = {f"SCALING__{name}": value for name, value in SCALING.items()}
    address = service("kafka").address
    with temporary("STREAMS", KAFKA__BOOTSTRAP=address, WORKERS_MAX="3", LEASE_S="3", **scaling) as made:
        made.environment |= {
            "INTELGRAPH__INGEST__BATCH_RECORDS": "100",  # lag lasts
            "INTELGRAPH__SHARDS__CANARY_S": "0.5",
        }
        yield made


def people(first: int, count: int) -> list[dict[str, Any]]:
    """Events."""
    common = {"kind": "entity", "op": "upsert", "type": "person"}
    return [{**common, "case": f"c{n % 5}", "id": f"p{n}", "props": {"n": n}} for n in range(first, first + count)]


def test_it_is_read_whatever_is_killed(
    installation: Installation, service: Callable[[str], Running], production: Services, unique: str
) -> None:
    run, topic = installation.run, Topic(service("kafka"), unique, PARTITIONS)

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = run("streams", "show", "feed")["stream"]
        return found

    def read(records: int) -> Callable[[], bool]:
        return lambda: shown().get("acked") == records

    run("up")
    refused = run("streams", "add", "feed", "--topic", f"{unique}-not", "-t", "acme", exit_code=1)
    assert "has no topic" in refused["error"]["message"]
    for partition in range(PARTITIONS):
        topic.send(people(partition * RECORDS, RECORDS), partition)
    added = run("streams", "add", "feed", "--topic", unique, "-t", "acme")
    assert (added["topic_partitions"], added["topic_records"]) == (PARTITIONS, PARTITIONS * RECORDS)
    again = run("streams", "add", "feed", "--topic", unique, "-t", "acme")
    assert again["stream"]["created"] == added["stream"]["created"]
    other = run("streams", "add", "feed", "--topic", unique, "-t", "other", exit_code=1)
    assert "reads something else" in other["error"]["message"]
    wait_until(read(PARTITIONS * RECORDS), START_S, "the topic is read")

    topic.send(people(0, RECORDS), 0)  # said again, as later records
    assert kill(stream_workers(run))
    production.kill("kafka")
    time.sleep(1.0)
    production.start("kafka")
    topic.send([*people(4 * RECORDS, RECORDS), b"no event"], 1)
    wait_until(read((PARTITIONS + 2) * RECORDS), 120.0, "it is read on")
    assert run("audit")["holds"]
    assert run("hash")["lines"] == (PARTITIONS + 1) * RECORDS
    assert run("dlq", "list", "-t", "acme")["facets"]["source"] == {"feed": 1}

    run("streams", "pause", "feed")
    wait_until(lambda: not readers(installation, "feed"), 30.0, "nobody reads it")
    topic.send(people(0, 10), 0)
    topic.trim(0, 2 * RECORDS + 4)
    run("streams", "resume", "feed")
    wait_until(lambda: shown()["state"] == "stopped", 30.0, "removed unread")
    lost = f"offsets {2 * RECORDS:,} to {2 * RECORDS + 3:,} were removed"
    assert lost in run("streams", "resume", "feed", exit_code=1)["error"]["message"]
    run("streams", "resume", "feed", "--skip-removed")
    wait_until(read((PARTITIONS + 2) * RECORDS + 6), 60.0, "the rest is read")
    actions = [action["action"] for action in run("audit", "--actions", "-t", "acme")["actions"]]
    assert actions.count("stream.changed") == 1
    assert {"stream.add", "stream.paused", "stream.active"} <= set(actions)


def readers(installation: Installation, stream: str) -> list[str]:
    """Who holds its partitions: a pause is told at once, and seen by who reads a moment later."""
    query = select(leases.c.holder).where(leases.c.name.like(f"stream/{stream}/%"), leases.c.holder != "")
    control = open_control(f"sqlite:///{installation.state_dir / 'control.db'}")
    with closing(control), control.database.read() as connection:
        return list(connection.execute(query).scalars())


def told(installation: Installation) -> WorkersTold:
    """What was decided last."""
    found = told_workers(installation.state_dir)
    assert found is not None
    return found


def test_workers_come_with_lag(installation: Installation, service: Callable[[str], Running], unique: str) -> None:
    """They are seen in the dashboard by name."""
    run, topic, sent = installation.run, Topic(service("kafka"), unique, 4), 0

    def send(each: int) -> int:
        if sent and 4 * sent - acked() >= UNREAD_MOST:
            time.sleep(0.1)
            return sent
        for partition in range(4):
            mine = [{**person, "case": f"s{partition}"} for person in people(sent, each)]
            topic.send(mine, partition)
        return sent + each

    def acked() -> int:
        return sum(part.acked for part in control.streams.partitions("scaled"))

    run("up")
    control = open_control(f"sqlite:///{installation.state_dir / 'control.db'}")
    sent = send(RECORDS)
    run("streams", "add", "scaled", "--topic", unique, "-t", "acme")
    end = time.monotonic() + START_S
    while told(installation).wanted < 3:  # lag has to last, however fast the machine reads
        assert time.monotonic() < end, "there should be three"
        sent = send(RECORDS)
    assert "lag " in told(installation).change
    end = time.monotonic() + START_S
    while told(installation).ready < 3:
        assert time.monotonic() < end, "three answer"
        sent = send(300)
    assert set(stream_workers(run)) == {f"stream-worker:{n}" for n in range(3)}
    wait_until(lambda: acked() == 4 * sent, 120.0, "all is read")
    control.close()
