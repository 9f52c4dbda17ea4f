"""`streams` from the command line, with a topic on a real broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.config_kafka import KafkaConnection
from cluster.stores.control import open_control
from cluster.stores.control_streams import Read, partition_lease
from cluster.stores.kafka_stream import KafkaStream
from cluster.streams.model import Look, StreamSpec
from cluster.streams.schemas import SeenSchema
from serve_apps.cli.exits import Exit
from serve_apps.cli.main import app
from services.spec import Running as Service
from tests.kafka_topics import Topic

pytestmark = [pytest.mark.services, pytest.mark.production]
RUNNER = CliRunner()


@pytest.fixture
def topic(service: Callable[[str], Service], unique: str, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic with five records."""
    made = Topic(service("kafka"), unique)
    made.send([{"n": n} for n in range(5)])
    monkeypatch.setenv("INTELGRAPH__STREAMS__KAFKA__BOOTSTRAP", made.bootstrap)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state directory whose system is down."""
    open_control(f"sqlite:///{tmp_path / 'control.db'}").close()
    return tmp_path


def run(folder: Path, *words: str) -> int:
    return RUNNER.invoke(app, ["streams", *words, "--state-dir", str(folder), "--json"]).exit_code


def test_a_table_that_is_not_captured_is_misuse_and_registers_nothing(folder: Path, topic: Topic) -> None:
    said = ("add", "crm", "--topic", topic.name, "-t", "acme", "--format", "debezium", "--table")
    assert run(folder, *said, "users") == Exit.USAGE
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    assert not control.sources.list("acme")
    assert run(folder, "add", "crm", "--topic", topic.name, "-t", "acme", "-t", "acme") == Exit.FAILED
    assert not control.sources.list("acme")
    control.close()
    assert run(folder, *said, "entities") == Exit.DONE


def test_a_stopped_stream_goes_on_when_its_records_are_there_again_or_are_given_up(folder: Path, topic: Topic) -> None:
    assert run(folder, "add", "hr", "--topic", topic.name, "-t", "acme") == Exit.DONE
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    kafka = KafkaStream(KafkaConnection(bootstrap=topic.bootstrap), 5.0, 1 << 20)
    found = kafka.look(topic.name)
    kafka.close()
    control.streams.looked("hr", Look(found.id, found.first, found.end), 0.0)
    control.streams.set_state("hr", "stopped", "records were removed")
    assert run(folder, "resume", "hr") == Exit.DONE
    topic.trim(0, 3)
    control.streams.set_state("hr", "stopped", "records were removed")
    assert run(folder, "resume", "hr") == Exit.FAILED
    assert control.streams.get("hr").state == "stopped"
    assert run(folder, "resume", "hr", "--skip-removed") == Exit.DONE
    assert [part.offset for part in control.streams.partitions("hr")] == [3]
    control.close()


def test_a_partition_that_has_stopped_is_shown_and_is_tried_again_when_the_stream_is_resumed(
    folder: Path, topic: Topic
) -> None:
    assert run(folder, "add", "hr", "--topic", topic.name, "-t", "acme") == Exit.DONE
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    control.streams.looked("hr", Look("t", {0: 0, 1: 0}, {0: 5, 1: 5}), 0.0)
    token = control.leases.acquire(partition_lease("hr", 0), "w", 60.0, time.time())
    epoch = control.streams.partitions("hr")[0].epoch
    minute_ago_ms = int(time.time() * 1000) - 60_000
    control.streams.commit("hr", Read(0, token, epoch, 0, 3, record_ms=minute_ago_ms))
    control.streams.tell_partition("hr", 0, token, "partition 0: the batch at offset 3 is damaged")
    (found,) = told(folder, "list")["streams"]
    assert (found["stopped_partitions"], found["lag_records"]) == ([0], 7)
    assert 60 <= found["lag_s"] < 120
    first, second = told(folder, "show", "hr")["partitions"]
    assert (first["note"], second["note"]) == ("partition 0: the batch at offset 3 is damaged", "")
    assert first["lag_s"] >= 60
    assert run(folder, "resume", "hr", "--skip-to", "0:x") == Exit.USAGE
    assert run(folder, "resume", "hr", "--skip-to", "0:9") == Exit.FAILED
    assert run(folder, "resume", "hr", "--skip-to", "0:4") == Exit.DONE
    assert control.audit.list("acme", action="stream.active")[-1].detail["skip_to"] == "0:4"
    assert [(part.offset, part.note) for part in control.streams.partitions("hr")] == [(4, ""), (0, "")]
    control.streams.tell_partition("hr", 0, token, "partition 0: the batch at offset 4 is damaged")
    assert run(folder, "resume", "hr") == Exit.DONE
    assert [part.note for part in control.streams.partitions("hr")] == ["", ""]
    control.streams.commit("hr", Read(0, token, epoch, 4, 5))
    assert told(folder, "show", "hr")["partitions"][0]["lag_s"] == 0
    control.close()


def test_what_cannot_be_resumed_accepts_no_schema(folder: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELGRAPH__STREAMS__REGISTRY__URL", "http://127.0.0.1:9")
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    control.sources.register("acme", "hr", 0.0)
    control.streams.add(StreamSpec("hr", ("acme",), topic.name, schema="registry", subject="hr"), 0.0)
    kafka = KafkaStream(KafkaConnection(bootstrap=topic.bootstrap), 5.0, 1 << 20)
    found = kafka.look(topic.name)
    kafka.close()
    control.streams.looked("hr", Look(found.id, found.first, found.end), 0.0)
    control.stream_schemas.saw("hr", SeenSchema("k", "E", 7, "hr", 2, "refused", "breaks", 0, 0, 1.0))
    control.streams.set_state("hr", "stopped", "a schema breaks")
    topic.trim(0, 3)
    assert run(folder, "resume", "hr", "--accept-schema") == Exit.FAILED
    assert run(folder, "resume", "hr", "--accept-schema", "--skip-to", "0:4") == Exit.USAGE
    assert [one.state for one in control.stream_schemas.list("hr")] == ["refused"]
    assert run(folder, "resume", "hr", "--accept-schema", "--skip-removed") == Exit.DONE
    assert [one.state for one in control.stream_schemas.list("hr")] == ["pinned"]
    assert control.audit.list("acme", action="stream.active")[-1].detail["accepted"] == ["k"]
    control.close()


def told(folder: Path, *words: str) -> Any:
    return json.loads(RUNNER.invoke(app, ["streams", *words, "--state-dir", str(folder), "--json"]).stdout)
