"""Log lines: one JSON object each, no secrets, nothing that drives a terminal."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from cluster.telemetry import Log, configure
from cluster.telemetry.logs import append_to


@pytest.fixture
def lines():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()

    def start(**options):
        configure(stream=stream, **options)
        return stream

    yield start
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def written(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_fields(lines):
    stream = lines()
    Log("shards").bind(tenant="acme").info("batch_applied", rows=3, shards=("a", "b"))
    (line,) = written(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "event": "batch_applied", "logger": "shards",
        "tenant": "acme", "rows": 3, "shards": ["a", "b"],
    }  # fmt: skip


def test_stdlib_loggers_go_the_same_way(lines):
    stream = lines()
    logging.getLogger("library").warning("lost %d", 3, extra={"shard": "shard-0"})
    (line,) = written(stream)
    assert (line["event"], line["level"], line["shard"]) == ("lost 3", "warning", "shard-0")


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_written(lines, as_json):
    stream = lines(as_json=as_json)
    secret = "hunter2hunter2"
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    log = Log("x")
    log.info("one", password=secret, redis_password=secret, api_key=secret, Authorization=secret, token=secret)
    log.info("two", nested={"deep": [{"client_secret": secret}]}, wrapped=SecretStr(secret))
    log.info("three", url=f"redis://user:{secret}@host/0", header=f"Bearer {token}")
    address = f"https://u:{secret}@host"
    logging.getLogger("library").warning("failed at %s", address)
    try:
        raise ValueError(f"cannot reach redis://:{secret}@host")
    except ValueError as error:
        log.error("four", error)
    text = stream.getvalue()
    assert "hidden" in text
    assert secret not in text
    assert token not in text


def test_innocent_names_are_kept(lines):
    stream = lines()
    Log("x").info("e", tokens_left=3, key="a", partition_key="b", keys=["c"], author="d")
    (line,) = written(stream)
    for name, value in {"tokens_left": 3, "key": "a", "partition_key": "b", "keys": ["c"], "author": "d"}.items():
        assert line[name] == value


def test_odd_values_make_a_line_all_the_same(lines):
    stream = lines()
    loop: dict[str, object] = {}
    loop["self"] = loop
    Log("x").info(
        "e", nan=math.nan, inf=[math.inf], bytes=b"\xff", loop=loop, time="mine", level="mine", object=object()
    )
    (line,) = written(stream)
    assert line["level"] == "info"
    assert line["level_"] == "mine"
    assert line["nan"] == "nan"


@given(st.text(), st.text())
def test_one_event_is_one_line_whatever_is_in_it(event, value):
    from cluster.telemetry.logs import JsonFormatter, TerminalFormatter

    record = logging.makeLogRecord({"msg": event, "name": "x", "levelname": "INFO", "fields": {"value": value}})
    assert json.loads(JsonFormatter().format(record))["logger"] == "x"
    assert "\n" not in JsonFormatter().format(record)
    shown = TerminalFormatter(colour=False).format(record)
    assert shown.isprintable()


def test_an_error_comes_with_its_traceback(lines):
    stream = lines()
    try:
        raise KeyError("gone")
    except KeyError as error:
        Log("x").error("failed", error, tenant="acme")
    (line,) = written(stream)
    assert "KeyError: 'gone'" in line["error"]
    assert line["tenant"] == "acme"


def test_levels_hold_and_configure_replaces(lines):
    stream = lines(level="WARNING")
    lines(level="WARNING")
    Log("x").info("quiet")
    Log("x").warning("loud")
    assert [line["event"] for line in written(stream)] == ["loud"]


def test_colour_only_on_a_terminal(lines, monkeypatch):
    stream = lines()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    lines()
    Log("x").error("loud", tenant="acme")
    assert "\x1b[31m" in stream.getvalue()
    assert "tenant=acme" in stream.getvalue()


_WRITER = """
import sys
from pathlib import Path
from cluster.telemetry import Log
from cluster.telemetry.logs import append_to
append_to(Path(sys.argv[1]), actor=f"writer:{sys.argv[2]}", shard=sys.argv[2])
for n in range(200):
    Log("intelgraph.writer").info("batch", n=n, text="é" * 5000)
"""


def test_processes_append_whole_lines_with_their_fields_to_one_file(tmp_path):
    path = tmp_path / "node.log"
    path.write_text('{"event":"before"}\n')
    names = ["shard-0", "shard-1", "shard-2"]
    running = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    first, *found = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {"event": "before"}
    assert all(line["actor"] == f"writer:{line['shard']}" for line in found)
    assert sorted((line["shard"], line["n"]) for line in found) == [(name, n) for name in names for n in range(200)]


def test_what_is_appended_has_no_secret_and_the_last_file_counts(lines, tmp_path):
    stream = lines(as_json=True)
    append_to(tmp_path / "first.log", actor="a")
    append_to(tmp_path / "node.log", actor="query-api", tenant="none")
    Log("x").bind(tenant="acme").info("opened", password="hunter2", token="eyJhbGciOiJFUzI1NiJ9.e30.c2ln")
    line = json.loads((tmp_path / "node.log").read_text())
    assert (line["event"], line["tenant"], line["actor"]) == ("opened", "acme", "query-api")
    assert "hunter2" not in str(line)
    assert "eyJ" not in str(line)
    assert (tmp_path / "first.log").read_text() == ""
    assert (tmp_path / "node.log").stat().st_mode & 0o077 == 0
    assert len(written(stream)) == 1
