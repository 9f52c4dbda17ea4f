"""Positions for records without: once, in one transaction, whatever crashes, races or clocks do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import NotFound, Overloaded, Rejected
from cluster.stores import control_tallies as tallies
from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_acceptance import CLOCK_SLACK_HOURS, IdempotencyMismatch
from tests.cluster.stores.processes import in_processes

T, S, HOUR = "tenant-1", "feed", 3600.0


@pytest.fixture
def store(store: ControlStore) -> ControlStore:
    """A control store with one source."""
    store.sources.register(T, S, 0.0)
    return store


def test_the_same_key_and_body_get_the_same_positions(store: ControlStore) -> None:
    first = store.acceptance.accept(T, S, "k", "hash", 10, 0.0)
    assert (first.epoch, first.first_position, first.replayed) == (1, 1, False)
    assert store.acceptance.accept(T, S, None, "hash", 5, 0.0).first_position == 11
    again = store.acceptance.accept(T, S, "k", "hash", 10, 1.0)
    assert (again.epoch, again.first_position, again.replayed) == (1, 1, True)
    assert store.acceptance.accept(T, S, None, "hash", 1, 0.0).first_position == 16


def test_another_body_under_the_same_key_is_refused_and_costs_nothing(store: ControlStore) -> None:
    store.acceptance.accept(T, S, "k", "hash", 10, 0.0)
    with pytest.raises(IdempotencyMismatch):
        store.acceptance.accept(T, S, "k", "other", 10, 0.0)
    with pytest.raises(IdempotencyMismatch):
        store.acceptance.accept(T, S, "k", "hash", 11, 0.0)
    assert store.acceptance.accept(T, S, "k2", "other", 1, 0.0).first_position == 11


def test_keys_are_of_one_tenant_and_source(store: ControlStore) -> None:
    store.sources.register(T, "other", 0.0)
    store.sources.register("tenant-2", S, 0.0)
    for tenant, source in ((T, S), (T, "other"), ("tenant-2", S)):
        accepted = store.acceptance.accept(tenant, source, "k", f"{tenant}{source}", 3, 0.0)
        assert (accepted.first_position, accepted.replayed) == (1, False)


def test_what_is_accepted_after_a_load_is_newer_than_it(store: ControlStore) -> None:
    before = store.acceptance.accept(T, S, None, "h", 2, 0.0)
    load = store.loads.start(T, S, "digest", 0.0)
    after = store.acceptance.accept(T, S, None, "h", 2, 0.0)
    assert before.epoch < load.epoch < after.epoch
    assert store.acceptance.accept(T, S, None, "h", 2, 0.0).epoch == after.epoch


def test_wrong_requests_are_refused(store: ControlStore) -> None:
    with pytest.raises(NotFound):
        store.acceptance.accept(T, "absent", None, "h", 1, 0.0)
    for key, count in (("", 1), ("k" * 257, 1), ("k", -1)):
        with pytest.raises(Rejected):
            store.acceptance.accept(T, S, key, "h", count, 0.0)


def test_a_key_is_forgotten_after_its_time_and_positions_never_return(store: ControlStore) -> None:
    kept_s = (24 + CLOCK_SLACK_HOURS) * HOUR
    first = store.acceptance.accept(T, S, "k", "hash", 10, 1000.0)
    assert store.acceptance.accept(T, S, "k", "hash", 10, 1000.0 + kept_s).replayed
    renewed = store.acceptance.accept(T, S, "k", "other", 10, 1001.0 + kept_s)
    assert not renewed.replayed
    assert renewed.first_position == first.first_position + 10


@given(written=st.floats(-HOUR, HOUR), read=st.floats(-HOUR, HOUR), age=st.floats(0, 24 * HOUR))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_expires_early_with_clocks_an_hour_off(
    store: ControlStore, written: float, read: float, age: float
) -> None:
    start = 1e9
    key = f"{written}/{read}/{age}"[:256]
    first = store.acceptance.accept(T, S, key, "hash", 1, start + written)
    again = store.acceptance.accept(T, S, key, "hash", 1, start + age + read)
    assert again.replayed
    assert again.first_position == first.first_position


Request = tuple[str | None, int, bool]
REQUESTS: st.SearchStrategy[list[Request]] = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 5), st.booleans()), max_size=15
)


@given(REQUESTS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_positions_are_dense_within_an_epoch_and_given_once(store: ControlStore, requests: list[Request]) -> None:
    source = uuid.uuid4().hex
    store.sources.register(T, source, 0.0)
    known: dict[str, tuple[str, int, int]] = {}
    epoch, expected = 0, 1
    for key, count, load_between in requests:
        if load_between:
            store.loads.epoch_of(T, source, uuid.uuid4().hex, 0.0)
        if key in known and known[key][0] != str(count):
            with pytest.raises(IdempotencyMismatch):
                store.acceptance.accept(T, source, key, str(count), count, 0.0)
            continue
        accepted = store.acceptance.accept(T, source, key, str(count), count, 0.0)
        if key in known:
            assert (accepted.epoch, accepted.first_position) == known[key][1:]
            continue
        assert accepted.epoch >= epoch
        epoch, expected = accepted.epoch, 1 if accepted.epoch > epoch else expected
        assert accepted.first_position == expected
        expected += count
        if key is not None:
            known[key] = (str(count), accepted.epoch, accepted.first_position)


def accept_many(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    taken = []
    for n in range(30):
        own = store.acceptance.accept(T, S, None, "h", 3, 0.0)
        shared = store.acceptance.accept(T, S, f"key-{n}", "h", 2, 0.0)
        taken.append([own.first_position, shared.first_position])
    Path(out, f"taken-{worker}").write_text(json.dumps(taken))
    store.close()


def test_processes_never_get_the_same_positions(store: ControlStore, url: str, tmp_path: Path) -> None:
    in_processes(3, accept_many, url, str(tmp_path))
    taken = [json.loads((tmp_path / f"taken-{n}").read_text()) for n in range(3)]
    shared = [[pair[1] for pair in one] for one in taken]
    assert shared[0] == shared[1] == shared[2], "one key, one position, whoever asks"
    used = [first + i for one in taken for first, _ in one for i in range(3)]
    used += [first + i for first in shared[0] for i in range(2)]
    assert sorted(used) == list(range(1, 3 * 30 * 3 + 30 * 2 + 1))


CRASHING = """
import os, signal, sys
from sqlalchemy import event
from cluster.stores.control import open_control
url, statement, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
store = open_control(url)
print(store.acceptance.accept("tenant-1", "feed", "before", "h", 4, 0.0).first_position, flush=True)
seen = 0

def crash(*_):
    global seen
    seen += 1
    if seen == statement:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(store.database._backend.engine, where, crash)
print(store.acceptance.accept("tenant-1", "feed", "key", "h", 7, 0.0).first_position, flush=True)
"""


@pytest.mark.parametrize(("statement", "where"), [*((n, "after_cursor_execute") for n in range(1, 7)), (1, "commit")])
def test_sigkill_between_any_two_statements_gives_no_position_twice(
    store: ControlStore, url: str, statement: int, where: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, url, str(statement), where],
        stdout=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[3], env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, "the crash point was reached"
    assert done.stdout.split() == ["1"]
    retried = store.acceptance.accept(T, S, "key", "h", 7, 0.0)
    assert (retried.replayed, retried.first_position) == (False, 5), "the transaction left nothing behind"
    assert store.acceptance.accept(T, S, None, "h", 1, 0.0).first_position == 12


def test_over_a_tenants_bound_a_new_key_is_refused_and_none_is_forgotten(store: ControlStore) -> None:
    kept_s, accept = (24 + CLOCK_SLACK_HOURS) * HOUR, store.acceptance.accept
    store.sources.register(T, "other", 0.0)
    store.sources.register("tenant-2", S, 0.0)
    first = accept(T, S, "k0", "hash", 10, 0.0, 3)
    accept(T, "other", "k1", "hash", 1, 5.0, 3)
    accept(T, S, "k2", "hash", 1, 6.0, 3)
    for source in (S, "other"):
        with pytest.raises(Overloaded, match="idempotency_positions") as refused:
            accept(T, source, "k3", "hash", 1, 100.0, 3)
        assert refused.value.retry_after_s == kept_s - 100.0
    again = accept(T, S, "k0", "hash", 10, 100.0, 3)
    assert again == replace(first, replayed=True)
    assert accept(T, S, None, "hash", 1, 100.0, 3).first_position == 12, "what is refused takes no positions"
    assert accept("tenant-2", S, "k3", "hash", 1, 100.0, 3).first_position == 1
    assert not accept(T, S, "k3", "hash", 1, kept_s + 1.0, 3).replayed, "the oldest may be forgotten, so there is room"
    with pytest.raises(Overloaded):
        accept(T, S, "k4", "hash", 1, kept_s + 1.0, 3)


def test_keys_are_counted_by_whoever_writes_and_as_they_are_forgotten(url: str, store: ControlStore) -> None:
    other = open_control(url)
    for number in range(6):
        (store, other)[number % 2].acceptance.accept(T, S, f"k{number}", "hash", 1, float(number))
    later = (24 + CLOCK_SLACK_HOURS) * HOUR + 4.0
    store.acceptance.accept(T, S, "late", "hash", 1, later)
    with store.database.read() as connection:
        kept = connection.exec_driver_sql("SELECT COUNT(*) FROM acceptances").scalar_one()
        assert tallies.one(connection, tallies.KEYS, T) == kept == 3
    other.close()
