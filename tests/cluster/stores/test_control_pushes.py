"""What is kept of a tenant's pushes is bounded, and forgetting it costs nobody else anything."""

from __future__ import annotations

import pytest

from cluster.stores.control import ControlStore
from cluster.stores.control_pushes import PushClaim

MOST, MOST_BYTES = 20, 100
ANSWER = {"accepted": 1}


def claim(store: ControlStore, key: str, now: float, tenant: str = "t", holder: str = "h") -> PushClaim:
    return store.pushes.claim(tenant, key, "body", holder, 15.0, now, MOST)


def answered(store: ControlStore, keys: range, tenant: str = "t") -> None:
    for n in keys:
        assert claim(store, str(n), float(n), tenant) == PushClaim()
        assert store.pushes.keep(tenant, str(n), ANSWER, MOST_BYTES) == ANSWER


def known(store: ControlStore, keys: range, now: float, tenant: str = "t") -> list[int]:
    """Keys that still have an answer; asking takes the others, so it comes last."""
    return [n for n in keys if claim(store, str(n), now, tenant, "asks").answer == ANSWER]


def test_over_the_limit_the_oldest_answers_of_that_tenant_are_forgotten(store: ControlStore) -> None:
    answered(store, range(MOST), "other")
    answered(store, range(MOST))
    assert claim(store, "one more", 50.0) == PushClaim()
    assert known(store, range(3, MOST), 60.0) == list(range(3, MOST))
    assert known(store, range(3), 60.0) == []
    assert known(store, range(MOST), 60.0, "other") == list(range(MOST))


def test_however_many_keys_come_no_more_are_kept(store: ControlStore) -> None:
    answered(store, range(5 * MOST))
    latest = range(4 * MOST + 3, 5 * MOST)
    assert known(store, latest, 200.0) == list(latest)
    assert known(store, range(4 * MOST), 200.0) == []


def test_a_push_that_is_at_work_is_not_forgotten(store: ControlStore) -> None:
    assert claim(store, "at work", 0.0) == PushClaim()
    for n in range(3 * MOST):
        assert claim(store, f"{n}", 1.0) == PushClaim()
        store.pushes.release("t", f"{n}", "h")
    assert claim(store, "at work", 2.0, holder="another").wait_s == pytest.approx(13.0)


def test_a_long_answer_is_not_kept_and_the_key_is_free_at_once(store: ControlStore) -> None:
    long = {"accepted": 0, "rejected": ["x" * MOST_BYTES]}
    assert claim(store, "k", 0.0) == PushClaim()
    assert store.pushes.keep("t", "k", long, MOST_BYTES) == long
    assert claim(store, "k", 1.0, holder="retry") == PushClaim()
