"""An empty control store and an empty lake of one's own; places for event logs, one for each kind of log; topics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores.control import ControlStore, open_control
from cluster.stores.kafka_stream import KafkaStream
from cluster.stores.lake import Lake
from tests.cluster.stores.logs import KafkaPlace, Place, RedisPlace
from tests.conftest import StartKafka
from tests.kafka_broker import KafkaBroker
from tests.kafka_topics import Topics, reader
from tests.postgres import PostgresServer

KINDS = ["redis", pytest.param("kafka", marks=pytest.mark.production)]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A control store's file that has its tables, to be copied."""
    path = tmp_path_factory.mktemp("control") / "empty.db"
    open_control(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres: PostgresServer) -> str:
    """The name of a control store's database that has its tables, to be copied."""
    open_control(postgres.create("migrated")).close()
    return "migrated"


@pytest.fixture
def sqlite_url(migrated: Path, tmp_path: Path) -> str:
    """Where the control store of this test is, as a file."""
    shutil.copy(migrated, tmp_path / "control.db")
    return f"sqlite:///{tmp_path / 'control.db'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer, migrated_database: str, unique: str) -> Iterator[str]:
    """Where the control store of this test is, in PostgreSQL."""
    yield postgres.create(unique, migrated_database)
    postgres.drop(unique)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.production)])
def url(request: pytest.FixtureRequest) -> str:
    """Where the control store of this test is, in each database."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    """An empty control store."""
    opened = open_control(url)
    yield opened
    opened.close()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An empty lake."""
    with Lake.open(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture(scope="session")
def kafka_broker(_start_kafka: StartKafka) -> KafkaBroker:
    """The run's Kafka broker; tests use names of their own."""
    return _start_kafka(secured=True)


@pytest.fixture
def kafka_cluster(_start_kafka: StartKafka) -> Iterator[list[KafkaBroker]]:
    """Three brokers of this test's own; the first one is the controller."""
    first = _start_kafka()
    brokers = [first, *(_start_kafka(first=first) for _ in range(2))]
    yield brokers
    for broker in reversed(brokers):
        broker.kill()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, unique: str) -> Iterator[Place]:
    """A place for a log of this test on the run's server, of each kind."""
    if request.param == "kafka":
        yield request.getfixturevalue("kafka_place")
        return
    made = RedisPlace(request.getfixturevalue("log_server"), unique)
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def own_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place for a log on a server, of each kind, that nobody else uses meanwhile: it may be killed."""
    if request.param == "kafka":
        yield request.getfixturevalue("own_kafka_place")
        return
    made = RedisPlace(request.getfixturevalue("start_server")("log", "log"), "log")
    yield made
    made.close()


@pytest.fixture
def own_kafka_place(mortal_kafka: KafkaBroker, unique: str) -> Iterator[KafkaPlace]:
    """A place for a log on a Kafka broker that nobody else uses meanwhile: it may be killed."""
    if not mortal_kafka.running:
        mortal_kafka.start()
    made = KafkaPlace(mortal_kafka, unique)
    yield made
    made.close()


@pytest.fixture
def kafka_place(kafka_broker: KafkaBroker, unique: str) -> Iterator[KafkaPlace]:
    """A place for a log of this test on the run's Kafka broker."""
    made = KafkaPlace(kafka_broker, unique)
    yield made
    made.close()


@pytest.fixture
def topics(kafka_broker: KafkaBroker) -> Topics:
    """Topics of the run's Kafka broker; tests use names of their own."""
    return Topics(kafka_broker)


@pytest.fixture
def stream(kafka_broker: KafkaBroker) -> Iterator[KafkaStream]:
    """A reader on the run's Kafka broker."""
    opened = reader(kafka_broker.bootstrap)
    yield opened
    opened.close()
