"""A node that finds another one on its control store stops; one that only lost its session goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from cluster.errors import Conflict, Unavailable
from cluster.stores.control import ControlStore, open_control
from serve_apps import node_tenure
from serve_apps.node_tenure import NodeTenure
from tests.postgres import PostgresServer

pytestmark = pytest.mark.production


@pytest.fixture
def url(postgres: PostgresServer, unique: str) -> Iterator[str]:
    yield postgres.create(unique)
    postgres.drop(unique)


@pytest.fixture
def store(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlStore]:
    monkeypatch.setattr(node_tenure, "LOOK_S", 0.05)
    monkeypatch.setattr(node_tenure, "TAKE_S", 1.0)
    monkeypatch.setattr(node_tenure, "LOST_S", 1.0)
    with closing(open_control(url)) as found:
        yield found


def test_it_waits_for_a_session_that_ends_and_not_for_one_that_stays(
    store: ControlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_control(url)) as other:
        other.database.take_tenure()
        with pytest.raises(Conflict, match="another node"):
            NodeTenure(store.database, threading.Event()).take()
        monkeypatch.setattr(node_tenure, "TAKE_S", 30.0)
        threading.Timer(0.3, other.database.end_tenure).start()
        NodeTenure(store.database, threading.Event()).take()


def test_it_goes_on_after_its_session_was_lost_and_stops_where_another_node_came(
    store: ControlStore, url: str, postgres: PostgresServer, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    tenure = NodeTenure(store.database, stopping)
    tenure.take()
    keeping = threading.Thread(target=tenure.keep, daemon=True)
    keeping.start()
    try:
        postgres.cut_off(unique)
        time.sleep(1.5)  # longer than it waits for another one to go
        assert not stopping.is_set()
        with closing(open_control(url)) as other:
            monkeypatch.setattr(node_tenure, "LOST_S", 60.0)
            taken_from_it(other, postgres, unique)
            time.sleep(0.3)
            other.database.end_tenure()
            assert not stopping.wait(0.3), "what goes within the time may be the rest of a session of its own"
            monkeypatch.setattr(node_tenure, "LOST_S", 1.0)
            taken_from_it(other, postgres, unique)
            keeping.join(30)
    finally:
        known = stopping.is_set()
        stopping.set()
    assert known
    assert "another node works on it" in str(tenure.lost_to)


def taken_from_it(other: ControlStore, postgres: PostgresServer, name: str) -> None:
    while True:  # the node asks again each moment: the other one has to be lucky once
        postgres.cut_off(name)
        with suppress(Conflict, Unavailable):
            return other.database.take_tenure()
