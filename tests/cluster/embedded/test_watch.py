"""The decision to restart, and a real server that is killed under watch."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.embedded import Role, Watched, alive, kill, server_spec, watch
from cluster.embedded.watch import History, Keep, Restart, RestartPolicy, Wait, decide, tick
from cluster.errors import Unavailable

POLICY = RestartPolicy(first_s=1.0, longest_s=8.0, per_minute=5, steady_s=100.0)


def test_what_runs_is_kept():
    assert decide(False, 10.0, History((9.0,), 1), POLICY) == Keep()


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_each():
    history = History()
    assert decide(True, 0.0, history, POLICY) == Restart()
    due = []
    now_s = 0.0
    for _ in range(3):
        history = history.started(now_s, POLICY)
        decision = decide(True, now_s, history, POLICY)
        assert isinstance(decision, Wait)
        assert decide(True, decision.until_s, history, POLICY) == Restart()
        due.append(decision.until_s - now_s)
        now_s = decision.until_s
    assert due == [1.0, 2.0, 4.0]


def test_after_a_steady_time_it_begins_anew():
    history = History()
    for now_s in (0.0, 10.0, 20.0):
        history = history.started(now_s, POLICY)
    assert history.in_a_row == 3
    assert decide(True, 121.0, history, POLICY) == Restart()
    assert history.started(121.0, POLICY).in_a_row == 1


@given(st.lists(st.floats(0.001, 40.0), min_size=20, max_size=80))
def test_never_more_than_the_bound_in_a_minute_and_never_given_up(steps):
    history, now_s, starts = History(), 0.0, []
    for step in steps:
        now_s += step
        decision = decide(True, now_s, history, POLICY)
        if isinstance(decision, Restart):
            starts.append(now_s)
            history = history.started(now_s, POLICY)
        else:
            assert isinstance(decision, Wait)
            assert decision.until_s - now_s <= 60.0
    for start_s in starts:
        assert sum(start_s <= other < start_s + 60.0 for other in starts) <= POLICY.per_minute
    assert len(history.starts_s) <= POLICY.per_minute


def test_a_start_that_the_file_system_refuses_is_tried_again(tmp_path):
    watched = Watched(server_spec(tmp_path, Role.CACHE, "cache", 0), None)
    shutil.rmtree(tmp_path / "servers")
    (tmp_path / "servers").write_text("where the servers' folders would be")
    for now_s in (0.0, 100.0):
        tick(watched, None, pytest.fail, now_s, POLICY)
    assert watched.running is None
    assert watched.history.starts_s == (0.0, 100.0)


@pytest.mark.services
def test_a_killed_server_comes_back_and_the_owner_is_asked_first(start_server):
    first = start_server(Role.SHARD)
    watched = Watched(first.spec, first)
    order: list[str] = []
    back = threading.Event()
    stopping = threading.Event()

    def restarted(running):
        order.append("restarted")
        back.set()

    def before_serving(spec):
        return lambda running, client: order.append("epoch")

    thread = threading.Thread(
        target=watch, args=({"s": watched}, before_serving, restarted, stopping), kwargs={"poll_s": 0.02}
    )
    thread.start()
    try:
        time.sleep(0.1)
        assert order == []
        kill(first)
        assert back.wait(10.0)
    finally:
        stopping.set()
        thread.join(10.0)
    assert order == ["epoch", "restarted"]
    assert watched.running is not None
    assert alive(watched.running)
    assert watched.running.pid != first.pid


@pytest.mark.services
def test_a_failed_start_is_counted_and_tried_again(start_server):
    first = start_server(Role.CACHE)
    kill(first)
    watched = Watched(first.spec, first)

    def fails(running, client):
        raise Unavailable("control store is down")

    tick(watched, fails, lambda running: None, 0.0, POLICY)
    assert watched.running is None
    tick(watched, None, lambda running: None, 0.5, POLICY)
    assert watched.running is None
    tick(watched, None, lambda running: None, 1.0, POLICY)
    assert watched.running is not None
