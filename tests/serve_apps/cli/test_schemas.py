"""`schemas`, and what `streams` does with them, from the command line against a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.stores.control import open_control
from serve_apps.cli.exits import Exit
from serve_apps.cli.main import app
from services.spec import Running as Service
from tests.kafka_topics import Topic
from tests.registered import Registered, avro_event, json_event, opened, with_field, without_field

pytestmark = [pytest.mark.services, pytest.mark.production]
RUNNER = CliRunner()
URL = "INTELGRAPH__STREAMS__REGISTRY__URL"


@pytest.fixture
def registered(service: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch) -> Iterator[Registered]:
    """The run's registry, which the command line knows."""
    for made in opened(service("registry")):
        monkeypatch.setenv(URL, made.settings.url)
        yield made


def run(folder: Path, *words: str) -> Result:
    return RUNNER.invoke(app, [*words, "--state-dir", str(folder), "--json"])


def test_check_says_by_its_exit_whether_a_schema_may_follow(
    registered: Registered, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "event.avsc"
    said = ("schemas", "check", str(file), "--subject", unique)
    file.write_text(json.dumps(avro_event()))
    first = run(tmp_path, *said)
    assert (first.exit_code, json.loads(first.stdout)["new"]) == (Exit.DONE, True)
    registered.rule(unique, "FULL")
    registered.add(unique, avro_event())
    file.write_text(json.dumps(with_field(avro_event(), "more", ["null", "string"], default=None)))
    assert run(tmp_path, *said).exit_code == Exit.DONE
    file.write_text(json.dumps(without_field(avro_event(), "id")))
    refused = run(tmp_path, *said)
    assert refused.exit_code == Exit.FAILED
    assert any("id is not written" in reason for reason in json.loads(refused.stdout)["reasons"])
    assert run(tmp_path, *said, "--version", "9").exit_code == Exit.USAGE
    assert run(tmp_path, "schemas", "check", str(tmp_path / "absent"), "--subject", unique).exit_code == Exit.USAGE
    file.write_text('{"type": "nothing"}')
    assert run(tmp_path, *said).exit_code == Exit.FAILED
    file.write_text(json.dumps(avro_event()))
    for url in ("http://127.0.0.1:9/x", ""):
        monkeypatch.setenv(URL, url)
        assert run(tmp_path, *said).exit_code == Exit.USAGE


def test_list_and_show_tell_what_the_registry_has(registered: Registered, unique: str, tmp_path: Path) -> None:
    number = registered.add(unique, avro_event())
    listed = json.loads(run(tmp_path, "schemas", "list").stdout)["subjects"]
    (mine,) = [one for one in listed if one["subject"] == unique]
    assert (mine["version"], mine["id"], mine["type"], mine["name"]) == (1, number, "AVRO", "org.intelgraph.Event")
    assert json.loads(json.loads(run(tmp_path, "schemas", "show", unique).stdout)["schema"]) == avro_event()
    assert run(tmp_path, "schemas", "show", f"{unique}-absent").exit_code == Exit.FAILED


def test_a_stream_is_added_with_its_schema_and_told_to_accept_another(
    registered: Registered, service: Callable[[str], Service], unique: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    topic = Topic(service("kafka"), unique)
    monkeypatch.setenv("INTELGRAPH__STREAMS__KAFKA__BOOTSTRAP", topic.bootstrap)
    open_control(f"sqlite:///{tmp_path / 'control.db'}").close()
    said = ("streams", "add", "hr", "--topic", topic.name, "-t", "acme", "--schema", "pinned")
    assert run(tmp_path, *said).exit_code == Exit.FAILED  # there is no such subject
    one = registered.add(f"{topic.name}-value", json_event(), "JSON")
    assert run(tmp_path, *said).exit_code == Exit.DONE
    assert run(tmp_path, *said).exit_code == Exit.DONE
    two = registered.add(f"{topic.name}-value", {**json_event(), "description": "new"}, "JSON")
    control = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    assert [(s.state, s.schema_id) for s in control.stream_schemas.list("hr")] == [("pinned", one)]
    control.streams.set_state("hr", "paused")
    assert run(tmp_path, "streams", "resume", "hr", "--accept-schema").exit_code == Exit.DONE
    assert {(s.state, s.schema_id) for s in control.stream_schemas.list("hr")} == {("former", one), ("pinned", two)}
    shown = json.loads(run(tmp_path, "streams", "show", "hr").stdout)["schemas"]
    assert {found["schema_id"] for found in shown} == {one, two}
    assert control.audit.list("acme", action="stream.active")[-1].detail["accepted"]
    control.close()
    assert (
        run(tmp_path, "streams", "add", "x", "--topic", topic.name, "-t", "a", "--subject", "s").exit_code == Exit.USAGE
    )
    assert run(tmp_path, "streams", "add", "x", "--topic", topic.name, "-t", "a").exit_code == Exit.DONE
    assert run(tmp_path, "streams", "resume", "x", "--accept-schema").exit_code == Exit.USAGE
