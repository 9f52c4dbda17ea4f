"""What all tests share: real servers that are surely gone afterwards, and the folder of shared data.

`start_server(role)` gives a server of one's own; `log_server`, `cache_server`, `falkor_server` are one each for the
whole run, so that a test uses names of its own: `unique` makes them, and what they prefix is removed after the test.
`connect(running)` opens an application's connection. `service(name)` gives a server of `services/`, one for the whole
run too; tests that ask for one are marked `production`. `mortal_kafka` is a broker that may
be killed. `graph_store` is a server of each graph database in turn.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from cluster.embedded import Role, Running, kill_server, operator, server_spec, start
from services import kafka
from services.catalogue import CATALOGUE
from services.runner import Services
from services.spec import NotInstallable
from services.spec import Running as Service
from tests.graph_stores import FalkorStore, GraphStore, Neo4jStore
from tests.kafka_broker import KafkaBroker
from tests.postgres import PostgresServer
from tests.s3_bucket import S3Bucket

pytest_plugins = ["tests.faults.reporting"]
TEST_MEMORY_BYTES = 512 << 20

hypothesis.settings.register_profile("tests", deadline=None)  # how long an example takes depends on the machine
hypothesis.settings.load_profile("tests")

_SERVED = Path(__file__).with_name("serve_apps")

StartServer = Callable[..., Running]
StartKafka = Callable[..., KafkaBroker]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What wants Ray comes first: with `-n 2` one process works at that from the beginning to the end. Then come files
    that take long: at the end both have something small to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not _wants_ray(item.path), item.path not in slow))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """With `-n 2`: what wants Ray in one process; of the rest, the tests of a file share its fixtures."""

    class ByServers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if _wants_ray(config.rootpath / file) else file

    return ByServers(config, log)


@cache
def _wants_ray(file: Path) -> bool:
    return file.is_relative_to(_SERVED) or "ray_node" in file.read_text()


@pytest.fixture(scope="session")
def server_root() -> Iterator[Path]:
    """A short private folder for servers; a process of its own removes it and them, even after SIGKILL."""
    folder = Path(tempfile.mkdtemp(prefix="igt-")).resolve()
    folder.chmod(0o711)  # PostgreSQL, which does not run as root, passes through it
    leash = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("leash.py")), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield folder
    leash.communicate()


@pytest.fixture(scope="session")
def _start(server_root: Path) -> Iterator[StartServer]:
    started: list[Running] = []

    def make(role: Role | str, name: str | None = None, *, folder: Path | None = None, **changes: Any) -> Running:
        name = name or f"{role}-{len(started)}"
        state_dir = folder or server_root / uuid.uuid4().hex[:8]
        spec = server_spec(state_dir, Role(role), name, TEST_MEMORY_BYTES)
        running = start(dataclasses.replace(spec, **changes))
        started.append(running)
        return running

    yield make
    for running in started:
        kill_server(running.spec)


@pytest.fixture
def start_server(_start: StartServer) -> Iterator[StartServer]:
    """`start_server(role, name=None, *, folder=None, **spec_changes) -> Running`; killed after the test.

    `folder` is the state directory: give the same one again to start a server anew on its data.
    """
    mine: list[Running] = []

    def make(*args: Any, **named: Any) -> Running:
        running = _start(*args, **named)
        mine.append(running)
        return running

    yield make
    for running in mine:
        kill_server(running.spec)


@pytest.fixture(scope="session")
def log_server(_start: StartServer) -> Running:
    """The run's log server (Redis Streams, fsync always)."""
    return _start(Role.LOG, "log")


@pytest.fixture(scope="session")
def cache_server(_start: StartServer) -> Running:
    """The run's cache server."""
    return _start(Role.CACHE, "cache")


@pytest.fixture(scope="session")
def falkor_server(_start: StartServer) -> Running:
    """The run's FalkorDB shard."""
    return _start(Role.SHARD, "shard-0")


@pytest.fixture(scope="session")
def production(server_root: Path) -> Iterator[Services]:
    """The run's real servers of `services/`; what they are fetched into stays for the next run."""
    artifacts = Path(__file__).parents[1] / ".services" / "artifacts"
    here = Services(server_root / "services", CATALOGUE, artifacts)
    yield here
    here.stop_all(keep_data=False)


@pytest.fixture(scope="session")
def service(production: Services) -> Callable[[str], Service]:
    """`service("kafka")`: that service, running; skips the test where it cannot be installed, saying why."""

    def find(name: str) -> Service:
        try:
            return production.start(name)
        except NotInstallable as error:
            pytest.skip(f"{name}: {error}")

    return find


@pytest.fixture(scope="session")
def _start_kafka(server_root: Path, production: Services) -> Iterator[StartKafka]:
    started: list[KafkaBroker] = []
    jars = production.artifacts / "kafka"

    def make(*arguments: Any, **named: Any) -> KafkaBroker:
        try:
            kafka.install(production.artifacts)
        except NotInstallable as error:
            pytest.skip(f"kafka: {error}")
        started.append(KafkaBroker(jars, server_root / f"kafka-{uuid.uuid4().hex[:8]}", *arguments, **named))
        started[-1].start()
        return started[-1]

    yield make
    for broker in started:
        broker.kill()


@pytest.fixture(scope="session")
def mortal_kafka(_start_kafka: StartKafka) -> KafkaBroker:
    """The run's Kafka broker for tests that kill it; see that it runs before you use it."""
    return _start_kafka()


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for keys, streams and graphs of this test; what begins with it is removed from the shared servers."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    yield prefix
    for name in ("log_server", "cache_server", "falkor_server"):
        if name in request.fixturenames:
            _remove(request.getfixturevalue(name), prefix)


@pytest.fixture(scope="session")
def neo4j_store(service: Callable[[str], Service]) -> Neo4jStore:
    """The run's Neo4j server; skips the test where none can be installed."""
    server = service("neo4j-0")
    return Neo4jStore(server.address, server.details["user"], SecretStr(server.details["password"]))


@pytest.fixture(scope="session")
def postgres(service: Callable[[str], Service]) -> PostgresServer:
    """The run's PostgreSQL server; skips the test where none can be installed."""
    return PostgresServer(service("postgres"))


@pytest.fixture
def bucket(production: Services, service: Callable[[str], Service], unique: str) -> Iterator[S3Bucket]:
    """A bucket of the run's S3 server, and a prefix of this test's own in it; the test may kill the server."""
    found = S3Bucket(production, service("s3"), unique)
    yield found
    found.start()


@pytest.fixture(params=["falkordb", pytest.param("neo4j", marks=pytest.mark.production)])
def graph_store(request: pytest.FixtureRequest, unique: str) -> GraphStore:
    """A server of each graph database in turn."""
    if request.param == "neo4j":
        found: Neo4jStore = request.getfixturevalue("neo4j_store")
        return found
    return FalkorStore(request.getfixturevalue("falkor_server"), unique)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of shared data: INTELGRAPH_SHARED, or `shared` beside the checkout; skips the test where it is not."""
    named = os.environ.get("INTELGRAPH_SHARED")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"shared data is not at {folder}: set INTELGRAPH_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def shared_path(shared_folder: Path) -> Callable[[str], Path]:
    """`shared_path("data/attack")`: that path in the shared data, or a skip that says what is missing."""

    def find(name: str) -> Path:
        path = shared_folder / name
        if not path.exists():
            pytest.skip(f"shared data lacks {name} (looked in {shared_folder})")
        return path

    return find


@pytest.fixture(scope="session")
def ray_node() -> Iterator[None]:
    """One running Ray node of two cores for the tests that need one."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="tests")
    yield
    ray.shutdown()


Connect = Callable[..., redis.Redis]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(running, **options) -> redis.Redis` with the application's rights, no retries; closed in the end."""
    opened: list[redis.Redis] = []

    def make(running: Running, **changes: Any) -> redis.Redis:
        password = running.password.get_secret_value()
        options: dict[str, Any] = {"unix_socket_path": str(running.socket), "password": password, **changes}
        client = redis.Redis(retry=Retry(NoBackoff(), 0), **options)
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


def _remove(running: Running, prefix: str) -> None:
    try:
        with operator(running.spec) as client:
            keys = list(client.scan_iter(match=f"{prefix}*", count=1000))
            if keys:
                client.delete(*keys)  # FalkorDB has crashed making a graph after others were unlinked
    except redis.ConnectionError:  # the test has killed it
        return
