"""What tests of the ingest paths share: a log of one's own on the real server, a control store, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import batch
from cluster.config import IngestLimits, LogSettings, Settings
from cluster.embedded import Running
from cluster.fold import Fold
from cluster.model import Record
from cluster.stores.control import ControlStore, open_control
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import RedisEventLog, open_redis_log
from cluster.stores.shard import StoredShard
from services.spec import Running as Service
from tests.actors.control_place import KINDS, Place, place_of
from tests.actors.shard_tapes import MakeShard
from tests.graph_stores import GraphStore
from tests.kafka_topics import Topic
from tests.stream_feed import TopicFeed

SETTINGS = Settings(
    ingest=IngestLimits(batch_records=7, retry_first_s=0.01, retry_most_s=0.05, retry_deadline_s=5, push_deadline_s=2),
    log=LogSettings(partitions=4, timeout_s=2.0, block_ms=100),
)


@pytest.fixture
def ingest_settings() -> Settings:
    """Small batches and quick retries."""
    return SETTINGS


@pytest.fixture
def event_log(log_server: Running, unique: str) -> Iterator[RedisEventLog]:
    """A log of this test's own."""
    address = RedisAddress(socket=str(log_server.socket), password=log_server.password)
    opened = open_redis_log(address, SETTINGS.log, unique)
    yield opened
    opened.close()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    """An empty control store."""
    opened = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    opened.close()


@pytest.fixture
def logged(event_log: RedisEventLog) -> Callable[[], list[Record]]:
    """`logged()`: every record in the log, partition by partition."""

    def read() -> list[Record]:
        records: list[Record] = []
        for partition, end in event_log.ends().items():
            after = 0
            while after < end:
                for entry in event_log.read(partition, after, 1000, 1 << 24):
                    records += batch.decode(entry.data)
                    after = entry.number
        return records

    return read


@pytest.fixture
def folded(logged: Callable[[], list[Record]]) -> Callable[[], Fold]:
    """`folded()`: what the log means."""
    return lambda: Fold().apply_all(logged())


@pytest.fixture
def person() -> Callable[..., dict[str, Any]]:
    """`person("ada", name="Ada", position=3)`: an event."""

    def make(id: str, *, case: str = "c1", op: str = "upsert", **fields: Any) -> dict[str, Any]:
        own = {k: fields.pop(k) for k in ("tenant", "source", "position", "epoch", "event_time") if k in fields}
        return {"case": case, "kind": "entity", "op": op, "type": "person", "id": id, "props": fields, **own}

    return make


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """`write_lines("a.jsonl", events)`: a file of JSON lines; texts are written as they are."""

    def write(name: str, events: list[Any]) -> Path:
        path = tmp_path / name
        path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
        return path

    return write


@pytest.fixture
def feed(
    service: Callable[[str], Service],
    control: ControlStore,
    event_log: RedisEventLog,
    ingest_settings: Settings,
    unique: str,
) -> Iterator[TopicFeed]:
    """A stream of a topic with two partitions; nothing of it is read yet."""
    made = TopicFeed(Topic(service("kafka"), unique, 2), control, event_log, ingest_settings)
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, unique: str) -> Iterator[Place]:
    """An installation that was never up."""
    with place_of(request, tmp_path, unique) as made:
        yield made


@pytest.fixture
def make_shard(graph_store: GraphStore) -> Iterator[MakeShard]:
    """`make_shard()`: a shard on an empty graph, and those before are gone; `make_shard(graph)`: another connection."""
    opened: list[Any] = []
    graphs: set[str] = set()

    def clear() -> None:
        while opened:
            opened.pop().close()
        while graphs:
            graph_store.drop(graphs.pop())

    def make_one(graph: str = "") -> StoredShard:
        if not graph:
            clear()
        graph = graph or graph_store.fresh()
        shard = graph_store.shard(graph_store.client(graph), write_rows=7)
        shard.graph = graph  # type: ignore[attr-defined]
        opened.append(shard)
        graphs.add(graph)
        return shard

    yield make_one
    clear()
