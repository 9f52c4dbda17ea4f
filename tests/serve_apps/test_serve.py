"""The API on Ray Serve behind HAProxy: what only shows there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from serve_apps.tokens import TokenAuthority
from tests.cluster.query.facts import EPOCH, Graph, entity, relationship
from tests.conftest import Running
from tests.graph_stores import FalkorStore

pytestmark = [pytest.mark.services, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@dataclass
class Api:
    """A running API and its one shard's graph.

    Args:
        pid: the process that has started Ray.
    """

    pid: int
    url: str
    ports: list[int]
    graph: Graph
    client: httpx.Client


@pytest.fixture(scope="module")
def api(falkor_server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Started once for this module."""
    state_dir = tmp_path_factory.mktemp("state")
    graph = Graph(FalkorStore(falkor_server, "tserve"), "tserve")
    password = falkor_server.password.get_secret_value()
    shard = {"uri": f"unix://{falkor_server.socket}", "password": password, "graph": "tserve", "epoch": EPOCH}
    with tempfile.TemporaryDirectory(prefix="igs-", ignore_cleanup_errors=True) as ray_dir:
        asked = json.dumps({"state_dir": str(state_dir), "ray_dir": ray_dir, "shard": shard})
        command = [sys.executable, "-m", "tests.serve_apps.api_process"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (state_dir / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdin.write(asked + "\n")
            process.stdin.flush()
            said = next((line for line in process.stdout if line.startswith('{"url"')), None)
            assert said, (state_dir / "log").read_text()[-4000:]
            token = TokenAuthority.open(state_dir).issue("a", ["read", "ingest", "operate"], ["feed"])
            with httpx.Client(
                timeout=30.0, base_url=json.loads(said)["url"], headers={"authorization": f"Bearer {token}"}
            ) as client:
                yield Api(process.pid, **json.loads(said), graph=graph, client=client)
        finally:
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                graph.close()


@pytest.mark.parametrize("id", ["a/b", "%2F", "ü/語", "a b?c#d", "x/neighbors", "..a/../b"])
def test_hostile_ids_pass_the_proxy_whole(api: Api, id: str) -> None:
    api.graph.write(
        [entity("a", id, "T", id), entity("a", id, "T", "n"), relationship("a", id, "R", "r", ("T", id), ("T", "n"))]
    )
    path = f"/v1/cases/{quote(id, safe='')}/entities/T/{quote(id, safe='')}"
    assert api.client.get(path).json()["id"] == id
    assert [e["id"] for e in api.client.get(path + "/neighbors").json()["entities"]] == ["n"]


def test_raw_requests_are_answered_as_problems(api: Api) -> None:
    at = urlsplit(api.url)
    for path in ("/v1/cases/c/entities/T/%ff", "/v1/cases/c/entities/T/%00", "/v1/../v1/cases", "//v1/cases"):
        with socket.create_connection((at.hostname, at.port), 5) as raw:
            auth = api.client.headers["authorization"]
            raw.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda raw=raw: raw.recv(65536), b""))
        assert answer.split(b" ", 2)[1] in (b"400", b"404"), answer
        assert b"application/problem+json" in answer


def test_a_client_cannot_set_the_servers_time_out(api: Api) -> None:
    api.graph.write([entity("a", "c", "T", "x")])
    headers = {"x-request-timeout-seconds": "0.000001", "X-Request-Disconnect-Disabled": "?1"}
    assert api.client.get("/v1/cases/c/entities/T/x", headers=headers).status_code == 200


def test_answers_keep_their_headers_and_304(api: Api) -> None:
    api.graph.write([entity("a", "c", "T", "x")])
    first = api.client.get("/v1/cases/c/entities/T/x")
    assert first.headers["x-content-type-options"] == "nosniff"
    again = api.client.get("/v1/cases/c/entities/T/x", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_bodies_that_are_too_large_are_refused(api: Api) -> None:
    headers = {"content-type": "application/json"}
    answer = api.client.post("/v1/events", content=b"x" * (9 << 20), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert api.client.post("/v1/events", content=b"x" * (7 << 20), headers=headers).status_code == 200


def test_many_at_once_are_answered_or_told_to_come_back(api: Api) -> None:
    api.graph.write([entity("a", "c", "T", "x")])
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda _: api.client.get("/v1/cases/c/entities/T/x").status_code, range(400)))
    assert set(found) <= {200, 429, 503}
    assert found.count(200) > 200


def test_a_replica_that_stands_still_keeps_nobody_waiting(api: Api) -> None:
    api.graph.write([entity("a", "c", "T", "x")])
    replica = _replica(api.pid)
    with ThreadPoolExecutor(8) as threads:
        os.kill(replica, signal.SIGSTOP)
        try:
            found = list(threads.map(lambda _: api.client.get("/v1/cases/c/entities/T/x"), range(16)))
        finally:
            os.kill(replica, signal.SIGCONT)
    assert {answer.status_code for answer in found} == {503}
    for answer in found:
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
    _wait_until_answered(api)


def test_a_replica_that_dies_is_said_to_be_away(api: Api) -> None:
    api.graph.write([entity("a", "c", "T", "x")])
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda _: _status(api), range(400))
        os.kill(_replica(api.pid), signal.SIGKILL)
        found = set(answers)
    assert found <= {"200", "503 application/problem+json", "closed"}
    _wait_until_answered(api)


def _status(api: Api) -> str:
    try:
        answer = api.client.get("/v1/cases/c/entities/T/x")
    except httpx.RemoteProtocolError:
        return "closed"
    return "200" if answer.status_code == 200 else f"{answer.status_code} {answer.headers['content-type']}"


def _wait_until_answered(api: Api, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while _status(api) != "200":
        assert time.monotonic() < end
        time.sleep(0.2)


def _replica(root: int) -> int:
    """The process of the API's replica, which descends from `root`."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid for pid in parents if _name(pid).startswith("ray::ServeReplica:api:") and root in _line(pid, parents)]
    assert len(found) == 1, found
    return found[0]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _line(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid:
        yield pid
        pid = parents.get(pid, 0)


def test_nothing_of_ours_listens_beyond_loopback(api: Api) -> None:
    listening: dict[int, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                listening.setdefault(int(port, 16), set()).add(address)
    ports = [urlsplit(api.url).port, *api.ports]
    assert {port: listening.get(port) for port in ports if port} == {port: {"0100007F"} for port in ports}
