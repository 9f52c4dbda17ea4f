"""A running cluster of hosts as its users see it: facts over any host, and what became of them."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from hosts.cluster import HEAD, HostCluster

TENANT = "acme"


class Acked(NamedTuple):
    """A fact that was acknowledged."""

    case: str
    name: str
    position: str


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

    def push(self, host: str, case: str, name: str, timeout_s: float = 30.0) -> Acked:
        """Two entities and what joins them, over a host's API. Raises httpx.HTTPError where it is not acknowledged."""
        person, firm = {"type": "person", "id": f"p-{name}"}, {"type": "firm", "id": f"f-{name}"}
        facts = [
            {"kind": "entity", **person, "props": {"name": name}},
            {"kind": "entity", **firm},
            {"kind": "relationship", "type": "works_for", "id": f"w-{name}", "from": person, "to": firm},
        ]
        body = [{"case": case, "op": "upsert", **fact} for fact in facts]
        headers = {**self._headers, "idempotency-key": name}
        answer = httpx.post(f"{self.cluster.api(host)}/v1/events", json=body, headers=headers, timeout=timeout_s)
        answer.raise_for_status()
        assert answer.json()["accepted"] == len(facts), answer.text
        return Acked(case, name, str(answer.json()["position"]))

    def read(self, host: str, fact: Acked, timeout_s: float = 30.0) -> httpx.Response:
        url = f"{self.cluster.api(host)}/v1/cases/{fact.case}/entities/person/p-{fact.name}"
        return httpx.get(url, params={"wait_for": fact.position}, headers=self._headers, timeout=timeout_s)

    def shows(self, host: str, fact: Acked) -> bool:
        answer = self.read(host, fact)
        return answer.status_code == 200 and answer.json()["props"] == {"name": fact.name}

    def shown(self) -> list[tuple[str, str, str]]:
        """(kind, type, id) of everything that the system shows, sorted; what is there twice is there twice."""
        lines = self.cluster.intelgraph(HEAD, f"export --tenant {TENANT}", 300.0).splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return sorted((fact["kind"], fact["type"], fact["id"]) for fact in found)


class Feed:
    """Pushes a fact after the other, each until it is acknowledged, over whichever host takes it. For a `with`."""

    def __init__(self, there: Installation, hosts: tuple[str, ...], cases: tuple[str, ...], name: str) -> None:
        self._there, self._hosts, self._cases, self._name = there, hosts, cases, name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acked: list[tuple[float, Acked]] = []
        """With the time before which none of it was sent."""

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(120.0)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        turn = tries = 0
        began = time.monotonic()
        while not self._stopping.is_set() or tries:  # the last one has to be acknowledged, too
            case, host = self._cases[turn % len(self._cases)], self._hosts[(turn + tries) % len(self._hosts)]
            try:
                fact = self._there.push(host, case, f"{self._name}-{turn}", timeout_s=5.0)
            except httpx.HTTPError:
                tries += 1
                time.sleep(0.2)
                continue
            self.acked.append((began, fact))
            turn, tries, began = turn + 1, 0, time.monotonic()
            time.sleep(0.05)

    def after(self, moment: float, case: str) -> Acked | None:
        """A fact of a case that was sent after a moment, if there is one."""
        return next((fact for began, fact in self.acked if began > moment and fact.case == case), None)


def within(seconds: float, done: Callable[[], bool], what: str) -> float:
    """Wait until something is so; returns after how many seconds it was."""
    began = time.monotonic()
    while True:
        try:
            if done():
                return time.monotonic() - began
        except (httpx.HTTPError, RuntimeError, subprocess.TimeoutExpired):
            pass
        assert time.monotonic() < began + seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
