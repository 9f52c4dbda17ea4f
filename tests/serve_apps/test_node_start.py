"""Actors and API start at once, and neither hides what became of the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.supervisor import Supervisor
from cluster.config import Settings, ShardSettings
from cluster.embedded import Port
from cluster.errors import Unavailable
from serve_apps.node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(Settings(state_dir=tmp_path, shards=ShardSettings(embedded=1)))
    yield made
    made._stopping.set()
    for thread in made._threads:
        thread.join(10.0)


def test_actors_that_do_not_start_are_said_while_the_api_is_not_there(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()

    def fails(_: Supervisor) -> None:
        raise Unavailable("the control store is away")

    monkeypatch.setattr(Supervisor, "ensure", fails)
    monkeypatch.setattr(node, "_start_api", never.wait)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="away"):
        node._start_actors_and_api()
    assert time.monotonic() < began + 5.0
    never.set()


def test_actors_are_looked_after_while_the_api_starts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, go = threading.Event(), threading.Event()

    def starts() -> tuple[str, Port]:
        assert go.wait(30.0)
        return "http://here", Port(1, 1)

    monkeypatch.setattr(Supervisor, "ensure", lambda _: None)
    monkeypatch.setattr(Supervisor, "run", lambda *_: looked.set())
    monkeypatch.setattr("actors.stream_worker_actor.watch_streams", lambda *_: None)
    monkeypatch.setattr(node, "_start_api", starts)
    api = node._start_actors_and_api()
    assert looked.wait(5.0) and not api.done()
    go.set()
    assert api.result(5.0) == ("http://here", Port(1, 1))


def test_an_api_that_does_not_start_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> tuple[str, Port]:
        raise Unavailable("Ray Serve did not start the API")

    monkeypatch.setattr(Supervisor, "ensure", lambda _: None)
    monkeypatch.setattr(Supervisor, "run", lambda *_: None)
    monkeypatch.setattr("actors.stream_worker_actor.watch_streams", lambda *_: None)
    monkeypatch.setattr(node, "_start_api", fails)
    with pytest.raises(Unavailable, match="did not start"):
        node._start_actors_and_api().result(5.0)
