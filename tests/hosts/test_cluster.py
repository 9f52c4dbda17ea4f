"""The system over several hosts, by `ray up` with our own file: what comes in at one host is seen at the others."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hosts.cluster import HEAD, NODES, WORKERS, HostCluster
from services.spec import NotInstallable

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_800)]
TENANT, CASE = "acme", "c-1"


class Installation:
    """A running cluster and a token for its API."""

    def __init__(self, cluster: HostCluster) -> None:
        self.cluster = cluster
        self.on_head(f"sources register crm --tenant {TENANT} --transport push")
        said = json.loads(self.on_head(f"token --tenant {TENANT} --scope read --scope ingest --source crm --json"))
        self._headers = {"authorization": f"Bearer {said['token']}"}

    def on_head(self, arguments: str) -> str:
        return self.cluster.intelgraph(HEAD, arguments)

    def where(self) -> dict[str, Any]:
        line = ". ~/.intelgraph/environment && python -m hosts.where"
        found: dict[str, Any] = json.loads(self.cluster.run(HEAD, line).splitlines()[-1])
        return found

    def push(self, host: str, name: str) -> str:
        """Two entities and what joins them, over a host's API; returns the position that shows them."""
        person, firm = {"type": "person", "id": f"p-{name}"}, {"type": "firm", "id": f"f-{name}"}
        facts = [
            {"kind": "entity", **person, "props": {"name": name}},
            {"kind": "entity", **firm},
            {"kind": "relationship", "type": "works_for", "id": f"w-{name}", "from": person, "to": firm},
        ]
        body = [{"case": CASE, "op": "upsert", **fact} for fact in facts]
        headers = {**self._headers, "idempotency-key": name}
        answer = httpx.post(f"{self.cluster.api(host)}/v1/events", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        assert answer.json()["accepted"] == len(facts), answer.text
        return str(answer.json()["position"])

    def read(self, host: str, name: str, wait_for: str) -> httpx.Response:
        url = f"{self.cluster.api(host)}/v1/cases/{CASE}/entities/person/p-{name}"
        return httpx.get(url, params={"wait_for": wait_for}, headers=self._headers, timeout=30)


def within(seconds: float, done: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
        except (httpx.HTTPError, RuntimeError, subprocess.TimeoutExpired):
            pass
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def there() -> Iterator[Installation]:
    """One cluster for this module, with the embedded parts; its last test takes it down."""
    cluster = HostCluster(Path(tempfile.mkdtemp(prefix="igh-")), ROOT, ROOT / ".services" / "artifacts")
    try:
        cluster.up(embedded=True)
        yield Installation(cluster)
    except NotInstallable as error:
        pytest.skip(str(error))
    finally:
        cluster.remove()


def test_every_host_has_joined_and_the_embedded_parts_keep_their_actors_at_the_head(there: Installation) -> None:
    within(60, lambda: there.where()["hosts"] == sorted(NODES), "every host has joined")
    actors = there.where()["actors"]
    assert {actors[name] for name in ("lake-appender", "shard-writer:shard-0", "shard-writer:shard-1")} == {HEAD}
    replicas = sorted(host for name, host in actors.items() if name.startswith("SERVE_REPLICA::"))
    assert replicas == sorted(NODES)


def test_what_came_in_at_one_host_is_seen_at_the_others(there: Installation) -> None:
    position = there.push(HEAD, "first")
    for worker in WORKERS:
        answer = there.read(worker, "first", position)
        assert answer.status_code == 200 and answer.json()["props"] == {"name": "first"}


def test_nothing_is_left(there: Installation) -> None:
    there.cluster.ray_down()
    there.cluster.remove()
    within(10, lambda: not there.cluster.left(), "everything has gone")
