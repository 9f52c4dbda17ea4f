"""How many stream workers there should be, look after look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scaling import Load, Scaling, bounds, decide, slope
from cluster.config_scaling import ScalingSettings
from cluster.config_streams import StreamSettings

SCALING = ScalingSettings(
    up_lag_records=1_000, up_lag_s=5.0, up_cpu=0.8, up_looks=3, up_pause_s=5.0, catch_up_s=10.0,
    down_lag_records=100, down_cpu=0.6, down_looks=5, down_pause_s=20.0, window_looks=5,
)  # fmt: skip
LIMITS = StreamSettings(workers_min=1, workers_max=8, scaling=SCALING)
BEHIND, IDLE = Load(0.0, 5_000, 9.0, 16), Load(0.0, 0, 0.0, 16)

LOADS = st.lists(
    st.builds(
        Load,
        at=st.just(0.0),
        lag_records=st.one_of(st.just(0), st.integers(0, 5_000)),
        lag_s=st.floats(0, 100),
        partitions=st.sampled_from([0, 1, 3, 16, 16, 16]),
        worker_cpu=st.lists(st.floats(0, 1), max_size=8).map(tuple),
        cores_free=st.lists(st.floats(0, 64), max_size=3).map(tuple),
        starting=st.integers(0, 2),
        waits=st.sampled_from(["", "", "the log is full"]),
    ),
    max_size=60,
)
BOUNDS = st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted)


def looks(loads: Iterable[Load], first: Scaling = Scaling(1), limits: StreamSettings = LIMITS) -> Iterator[Scaling]:
    """What is decided, one look a second."""
    for second, load in enumerate(loads):
        first = decide(limits, first, replace(load, at=float(second)))
        yield first


@given(LOADS, BOUNDS, st.integers(0, 20))
def test_bounds_and_partitions_hold_whatever_is_seen(loads: list[Load], ends: list[int], first: int) -> None:
    limits = LIMITS.model_copy(update={"workers_min": ends[0], "workers_max": ends[1]})
    for load, found in zip(loads, looks(loads, Scaling(first), limits), strict=True):
        assert 1 <= found.workers <= max(1, load.partitions)
        assert found.workers <= ends[1]
        assert found.workers >= min(ends[0], max(1, load.partitions))
        assert found.reason


@given(LOADS)
def test_it_goes_up_to_twice_as_many_and_down_by_one_each_after_so_many_looks(loads: list[Load]) -> None:
    loads = [replace(load, partitions=16) for load in loads]
    found = [Scaling(4), *looks(loads, Scaling(4))]
    changed: list[int] = []
    for at, (before, after) in enumerate(pairwise(found)):
        if after.workers == before.workers:
            continue
        assert before.workers - 1 <= after.workers <= 2 * before.workers
        up = after.workers > before.workers
        wanted, pause = (SCALING.up_looks, SCALING.up_pause_s) if up else (SCALING.down_looks, SCALING.down_pause_s)
        assert at + 1 >= wanted
        if changed:
            assert at - changed[-1] >= max(wanted, pause)
        seen = loads[at + 1 - wanted : at + 1]
        if up:
            assert all(load.lag_records > SCALING.down_lag_records for load in seen)
        else:
            assert all(load.lag_records <= SCALING.down_lag_records for load in seen)
        changed.append(at)


@given(st.builds(Load, st.just(0.0), st.integers(0, 5_000), st.floats(0, 100), st.just(16)), st.integers(1, 8))
def test_what_stays_as_it_is_moves_the_number_one_way_only(load: Load, first: int) -> None:
    numbers = [first, *(found.workers for found in looks([load] * 300, Scaling(first)))]
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True))
    assert numbers[-1] == numbers[-50]


def test_a_short_peak_changes_nothing() -> None:
    loads = [BEHIND, BEHIND, IDLE] * 20
    assert {found.workers for found in looks(loads)} == {1}


def test_lag_makes_more_at_once_and_its_end_fewer_slowly() -> None:
    found = [scaling.workers for scaling in looks([BEHIND] * 30 + [IDLE] * 200)]
    assert [found.index(number) for number in (2, 4, 8)] == [2, 7, 12]
    assert found[32] == 8
    assert found[-1] == 1
    assert all(after >= before - 1 for before, after in pairwise(found))
    assert found.index(7, 13) - 30 == 4
    assert found.index(6, 13) - found.index(7, 13) == 20


def test_a_fall_that_ends_soon_is_waited_for() -> None:
    falling = [replace(BEHIND, lag_records=20_000 - 2_000 * n) for n in range(9)]
    assert {found.workers for found in looks(falling)} == {1}
    slowly = [replace(BEHIND, lag_records=20_000 - 100 * n) for n in range(9)]
    assert max(found.workers for found in looks(slowly)) > 1


def test_workers_that_are_busy_while_lag_grows_get_help_early() -> None:
    growing = [Load(0.0, 200 + 20 * n, 0.5, 16, worker_cpu=(0.95,)) for n in range(20)]
    assert max(found.workers for found in looks(growing)) > 1
    calm = [replace(load, worker_cpu=(0.3,)) for load in growing]
    assert {found.workers for found in looks(calm)} == {1}


def test_one_is_kept_that_the_others_could_not_do_without() -> None:
    busy = replace(IDLE, worker_cpu=(0.5, 0.5, 0.5))
    assert [found.workers for found in looks([busy] * 100, Scaling(3))][-1] == 3
    assert "would take" in list(looks([replace(IDLE, worker_cpu=(0.1, 0.1))] * 5, Scaling(2)))[-1].reason


def test_one_record_of_a_slow_topic_is_no_lag() -> None:
    slow = Load(0.0, 1, 3_600.0, 100)
    found = list(looks([slow] * 200, Scaling(4)))
    assert max(scaling.workers for scaling in found) == 4
    assert found[-1].workers == 1


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (replace(BEHIND, waits="the log is full"), "workers wait: the log is full"),
        (replace(BEHIND, cores_free=(0.1, 0.3)), "no host has CPU left: 0.3 cores are free"),
        (replace(BEHIND, starting=1), "1 of 1 workers are starting"),
    ],
)
def test_more_workers_are_not_tried_where_they_would_not_help(load: Load, reason: str) -> None:
    found = list(looks([load] * 20))
    assert {scaling.workers for scaling in found} == {1}
    assert reason in found[-1].reason
    assert found[-1].reason.startswith("lag 5,000 records, 9 s, steady; ")


def test_looks_count_from_when_the_workers_that_there_are_have_begun() -> None:
    starts, begun = replace(BEHIND, starting=1), [BEHIND] * LIMITS.scaling.up_looks
    found = [scaling.workers for scaling in looks([*[starts] * 20, *begun])]
    assert found == [1] * (len(found) - 1) + [2]


def test_one_host_with_cpu_left_will_do() -> None:
    assert max(found.workers for found in looks([replace(BEHIND, cores_free=(0.1, 0.8))] * 20)) == 8


def test_partitions_that_come_and_go_are_followed_at_once() -> None:
    fewest = LIMITS.model_copy(update={"workers_min": 4})
    counts = [2, 0, 16, 3]
    found = [scaling.workers for scaling in looks([replace(IDLE, partitions=n) for n in counts], Scaling(4), fewest)]
    assert found == [2, 1, 4, 3]
    assert bounds(fewest, 0) == (1, 1)


def test_the_slope_is_that_of_a_straight_line() -> None:
    assert slope(()) == slope(((1.0, 5),)) == slope(((1.0, 5), (1.0, 9))) == 0.0
    assert slope(tuple((float(n), 100 - 7 * n) for n in range(5))) == pytest.approx(-7.0)


def test_a_load_that_more_workers_can_do_finds_its_number_and_stays_there() -> None:
    """A model: each worker reads 1,000 records a second, and 2,700 come until there are none."""
    now, lag, numbers = Scaling(1), 0.0, []
    for second in range(400):
        coming = 2_700 if second < 200 else 0
        read = min(lag + coming, 1_000 * now.workers)
        lag += coming - read
        cpu = read / (1_000 * now.workers)
        now = decide(LIMITS, now, Load(float(second), int(lag), lag / 2_700, 16, (cpu,) * now.workers))
        numbers.append(now.workers)
    assert numbers[20:200] == [4] * 180, "2,700 a second are 90% of three workers: a fourth stays"
    assert numbers[-1] == 1
