"""Routing as pure decisions: ownership, freshness, breakers, retries, deadlines, merging."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import IntelGraphError, Unavailable
from cluster.ids import BUCKETS
from cluster.routing import (
    Breaker,
    Deadline,
    ShardState,
    delays,
    group_by_owner,
    merge,
    next_delay,
    route_read,
    route_write,
)  # fmt: skip
from cluster.shard_map import initial

NAMES = ["a", "b", "c"]
MAP = initial(NAMES, 8)
State = Literal["active", "draining", "down"]
STATES: st.SearchStrategy[State] = st.sampled_from(("active", "draining", "down"))
LAGS = st.none() | st.floats(0, 100)
BUCKET = st.integers(0, BUCKETS - 1)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, ShardState]:
    states = {}
    for name in NAMES:
        if draw(st.integers(0, 9)):
            states[name] = ShardState(name, None, draw(STATES), draw(st.integers(0, 9)), draw(LAGS))
        for n in range(draw(st.integers(0, 3))):
            states[f"{name}{n}"] = ShardState(f"{name}{n}", name, draw(STATES), draw(st.integers(0, 9)), draw(LAGS))
    return states


@given(clusters(), BUCKET)
def test_a_write_goes_to_the_owner_or_nowhere(states: dict[str, ShardState], bucket: int) -> None:
    owner = MAP.owners[bucket]
    if owner in states and states[owner].state != "down":
        route = route_write(MAP, bucket, states)
        assert (route.shard, route.epoch, route.revision) == (owner, states[owner].epoch, 1)
    else:
        with pytest.raises(Unavailable, match="owns bucket") as raised:
            route_write(MAP, bucket, states, retry_after_s=3.0)
        assert raised.value.retry_after_s == 3.0


@given(clusters(), BUCKET, st.floats(0, 100))
def test_a_read_goes_to_the_owner_or_a_fresh_replica_of_it(
    states: dict[str, ShardState], bucket: int, max_lag_s: float
) -> None:
    owner = MAP.owners[bucket]
    fresh = {
        s.id for s in states.values()
        if s.of == owner and s.state != "down" and s.lag_s is not None and s.lag_s <= max_lag_s
    }  # fmt: skip
    primary = {owner} if owner in states and states[owner].state != "down" else set()
    if not fresh | primary:
        with pytest.raises(Unavailable):
            route_read(MAP, bucket, states, max_lag_s)
        return
    routes = [route.shard for route in route_read(MAP, bucket, states, max_lag_s)]
    assert set(routes) == fresh | primary
    assert len(routes) == len(set(routes))
    if primary:
        assert routes[0] == owner
    lags = [states[name].lag_s or 0.0 for name in routes if name != owner]
    assert lags == sorted(lags)


def test_a_breaker_opens_tries_one_call_and_closes() -> None:
    breaker = Breaker(failures_limit=3, open_s=5.0)
    for _ in range(2):
        breaker = breaker.called(0.0).failed(0.0)
        assert breaker.allows(0.0)
    breaker = breaker.called(1.0).failed(1.0)
    assert not breaker.allows(5.9)
    assert breaker.retry_after_s(2.0) == 4.0
    assert breaker.allows(6.0)
    trial = breaker.called(6.0)
    assert not trial.allows(6.1), "one trial at a time"
    assert trial.allows(11.0), "a trial that never reports does not hold it for ever"
    assert not trial.failed(7.0).allows(11.9)
    closed = trial.succeeded()
    assert closed == Breaker(failures_limit=3, open_s=5.0)
    assert closed.allows(6.1)
    assert closed.retry_after_s(6.1) == 0.0


STEPS = st.lists(st.tuples(st.sampled_from(["call", "ok", "fail"]), st.floats(0, 3)), max_size=60)


@given(STEPS, st.integers(1, 5))
def test_an_open_breaker_lets_at_most_one_call_through_in_its_time(
    steps: list[tuple[Literal["call", "ok", "fail"], float]], limit: int
) -> None:
    breaker, now_s, in_a_row = Breaker(limit, 5.0), 0.0, 0
    let_through: list[float] = []
    for step, pause_s in steps:
        now_s += pause_s
        if step == "call" and breaker.allows(now_s):
            if breaker.opened_s is not None:
                let_through.append(now_s)
            breaker = breaker.called(now_s)
        elif step == "ok":
            breaker, in_a_row, let_through = breaker.succeeded(), 0, []
        elif step == "fail":
            breaker, in_a_row = breaker.failed(now_s), in_a_row + 1
        assert (breaker.opened_s is not None) == (in_a_row >= limit)
        assert breaker.allows(now_s) == (breaker.retry_after_s(now_s) <= 1e-9)
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(let_through))


@given(st.integers(0, 2**32), st.integers(1, 2000), st.floats(0.001, 1), st.floats(0.001, 10))
def test_retries_are_bounded_and_repeatable(seed: int, attempts: int, base_s: float, cap_s: float) -> None:
    waits = list(delays(random.Random(seed), attempts, base_s, cap_s))
    assert len(waits) == attempts - 1
    assert all(0 <= wait <= min(cap_s, base_s * 2 ** min(n, 60)) for n, wait in enumerate(waits))
    assert waits == list(delays(random.Random(seed), attempts, base_s, cap_s))


def test_jitter_spreads_the_callers() -> None:
    firsts = {next(delays(random.Random(seed), 2, 1.0)) for seed in range(100)}
    assert len(firsts) == 100
    assert max(firsts) - min(firsts) > 0.8


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_no_wait_outlives_the_deadline(wait_s: float, retry_after_s: float, at_s: float, now_s: float) -> None:
    delay_s = next_delay(wait_s, retry_after_s, Deadline(at_s), now_s)
    if delay_s is None:
        assert max(wait_s, retry_after_s) >= at_s - now_s
    else:
        assert delay_s >= max(wait_s, retry_after_s)
        assert now_s + delay_s <= at_s + 1e-9


def test_a_timeout_leaves_the_reserve() -> None:
    deadline = Deadline(10.0)
    assert deadline.timeout_s(4.0, most_s=30.0, reserve_s=1.0) == 5.0
    assert deadline.timeout_s(4.0, most_s=2.0) == 2.0
    assert deadline.timeout_s(9.5, most_s=2.0, reserve_s=1.0) == 0.0
    assert deadline.left_s(11.0) == 0.0


@given(st.sets(BUCKET, max_size=200))
def test_a_fan_out_asks_each_owner_for_its_own_buckets_once(buckets: set[int]) -> None:
    groups = group_by_owner(MAP, buckets)
    assert sorted(bucket for group in groups.values() for bucket in group) == sorted(buckets)
    assert all(MAP.owners[bucket] == shard for shard, group in groups.items() for bucket in group)
    assert list(groups) == sorted(groups)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["ok", "error", "late"]), max_size=6), st.randoms())
def test_a_merge_names_whoever_is_missing(fates: dict[str, str], shuffle: random.Random) -> None:
    arrived = [shard for shard, fate in fates.items() if fate != "late"]
    shuffle.shuffle(arrived)
    outcomes: dict[str, str | IntelGraphError] = {
        shard: f"rows of {shard}" if fates[shard] == "ok" else Unavailable("is down") for shard in arrived
    }
    merged = merge(list(fates), outcomes)
    assert merged.answers == tuple(f"rows of {shard}" for shard in sorted(fates) if fates[shard] == "ok")
    assert set(merged.missing) == {shard for shard, fate in fates.items() if fate != "ok"}
    assert merged.complete == (not merged.missing)
    assert all((fates[shard] == "late") == ("deadline" in reason) for shard, reason in merged.missing.items())
