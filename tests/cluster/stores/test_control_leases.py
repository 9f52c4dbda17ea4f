"""Leases: one holder, and no token twice, whatever clocks do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import Conflict, Fenced
from cluster.stores.control import ControlStore, open_control
from tests.cluster.stores.processes import in_processes


def test_a_lease_has_one_holder_and_each_take_over_a_greater_token(store: ControlStore) -> None:
    leases = store.leases
    assert leases.acquire("lake", "one", 10.0, now=100.0) == 1
    with pytest.raises(Conflict) as raised:
        leases.acquire("lake", "two", 10.0, now=107.0)
    assert raised.value.retry_after_s == 3.0
    leases.renew("lake", 1, 10.0, now=108.0)
    with pytest.raises(Conflict):
        leases.acquire("lake", "two", 10.0, now=117.0)
    assert leases.acquire("lake", "two", 10.0, now=118.0) == 2
    with pytest.raises(Fenced):
        leases.renew("lake", 1, 10.0, now=118.0)
    with pytest.raises(Fenced):
        leases.check("lake", 1)
    leases.release("lake", 1)
    leases.check("lake", 2)
    assert leases.acquire("lake", "two", 10.0, now=119.0) == 3, "a restarted holder fences its former self"
    leases.release("lake", 3)
    with pytest.raises(Fenced):
        leases.renew("lake", 3, 10.0, now=120.0)
    assert leases.acquire("lake", "one", 10.0, now=120.0) == 4


def test_a_clock_that_goes_back_ends_no_lease_early(store: ControlStore) -> None:
    token = store.leases.acquire("lake", "one", 10.0, now=5000.0)
    store.leases.renew("lake", token, 10.0, now=1400.0)
    with pytest.raises(Conflict):
        store.leases.acquire("lake", "two", 10.0, now=5009.0)


def lease_race(worker: int, url: str, out: str) -> None:
    store = open_control(url)
    tokens = [store.leases.acquire("lake", f"holder-{worker}", 0.0, now=1.0) for _ in range(20)]
    Path(out, f"tokens-{worker}").write_text(json.dumps(tokens))
    store.close()


def test_no_token_is_given_twice(url: str, tmp_path: Path) -> None:
    in_processes(3, lease_race, url, str(tmp_path))
    tokens = [token for n in range(3) for token in json.loads((tmp_path / f"tokens-{n}").read_text())]
    assert sorted(tokens) == list(range(1, 61))
