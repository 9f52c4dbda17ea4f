"""Leases that outlast what is done under them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.keeping import Kept
from cluster.errors import Conflict, Fenced, Unavailable
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_leases import Leases

TTL_S = 2.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    opened.close()


def begun(store: ControlStore) -> Kept:
    token = store.leases.acquire("writer/a", "one", TTL_S, time.time())
    return Kept(store.leases, {"writer/a": token}, TTL_S)


def take(store: ControlStore, by_force: bool = False) -> int:
    return store.leases.acquire("writer/a", "two", TTL_S, time.time(), by_force=by_force)


def test_they_are_kept_between_steps_and_end_after_the_block(store: ControlStore) -> None:
    with begun(store) as kept:
        time.sleep(2 * TTL_S)
        with pytest.raises(Conflict):
            take(store)
        assert kept.during(lambda: "done", lambda: None) == "done"
    time.sleep(1.1 * TTL_S)
    take(store)


def test_a_step_is_left_where_another_took_over(store: ControlStore) -> None:
    looks: list[float] = []
    ended = threading.Event()
    with begun(store) as kept:
        take(store, by_force=True)
        with pytest.raises(Fenced):
            kept.during(lambda: ended.wait(30), lambda: looks.append(time.monotonic()))
        with pytest.raises(Fenced):
            kept.during(lambda: ended.wait(30), lambda: looks.append(time.monotonic()))
        ended.set()
    assert len(looks) < 10, "that is seen within a third of its time"


def test_what_a_step_raises_is_raised(store: ControlStore) -> None:
    def step() -> None:
        raise Unavailable("a shard does not answer", 1.0)

    with begun(store) as kept, pytest.raises(Unavailable, match="a shard"):
        kept.during(step, lambda: None)


def test_a_store_that_does_not_answer_for_a_moment_ends_nothing(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[float]()
    renew = Leases.renew

    def away(self: Leases, name: str, token: int, ttl_s: float, now: float) -> None:
        calls.append(now)
        if len(calls) == 2:
            raise Unavailable("the control store does not answer", 1.0)
        renew(self, name, token, ttl_s, now)

    monkeypatch.setattr(Leases, "renew", away)
    with begun(store) as kept:
        kept.during(lambda: time.sleep(2 * TTL_S), lambda: None)
        with pytest.raises(Conflict):
            take(store)
    assert len(calls) > 3
