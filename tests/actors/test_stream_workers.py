"""Which stream workers there are: the ones that answer read, the ones that are too many hold nothing before they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.stream_workers import StreamWorkers, worker_name
from actors.workers_told import forget_workers, tell_workers, told_workers
from cluster.config import Settings
from cluster.config_scaling import ScalingSettings
from cluster.config_streams import StreamSettings
from cluster.streams.model import StreamPartition

SCALING = ScalingSettings(
    up_lag_records=100, up_looks=2, up_pause_s=1.0, down_lag_records=10, down_looks=2, down_pause_s=1.0
)
W0, W1, W2, W3 = (worker_name(n) for n in range(4))


class Stand:
    """Workers as a supervisor and Ray would have them; each look is a second later."""

    def __init__(self, folder: Path, there: tuple[int, ...] = (), **changes: Any) -> None:
        streams = StreamSettings(workers_min=1, workers_max=4, scaling=SCALING)
        self.settings = Settings(state_dir=folder, streams=streams.model_copy(update=changes))
        self.now, self.left, self.holding = 0.0, there, set[str]()
        self.statuses: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.workers = StreamWorkers(self.settings, lambda: self.statuses, self, lambda: self.now, lambda: self.now)

    def there(self) -> tuple[int, ...]:
        return self.left

    def drain(self, name: str) -> bool:
        self.asked.append(name)
        return name not in self.holding

    def answer(self, *names: str, **status: Any) -> None:
        own = {"state": "running", "reason": "", "pid": 1, "cpu": 0.1, "host": "h", "host_cpu": 0.2}
        self.statuses = {name: {**own, **status} for name in names}

    def look(self, lag: int, partitions: int = 4, note: str = "") -> list[str]:
        self.now += 1.0
        parts = [StreamPartition(n, 1, 0, 0, end=lag // partitions, note=note) for n in range(partitions)]
        return self.workers.look(parts)


def test_no_worker_more_comes_to_hosts_without_a_core_free(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.answer(W0, host_cpu=0.61, cores=2)
    for _ in range(20):
        stand.look(100_000)
    assert stand.workers.wanted() == [W0]
    stand.statuses[W0] = {"state": "silent", "reason": "dead"}
    for _ in range(20):
        stand.look(100_000)
    assert stand.workers.wanted() == [W0], "it is started again: how busy its host will be is not known"
    stand.answer(W0, host_cpu=0.59, cores=2)
    stand.look(100_000)
    stand.look(100_000)
    assert stand.workers.wanted() == [W0, W1]


def test_none_starts_that_would_have_no_partition(tmp_path: Path) -> None:
    stand = Stand(tmp_path, workers_min=3)
    assert stand.workers.wanted() == [W0], "nobody has looked yet"
    stand.look(0, partitions=2)
    assert stand.workers.wanted() == [W0, W1]
    assert (told := told_workers(tmp_path)) and told.change == "", "nothing was more before"
    stand.look(0)
    assert stand.workers.wanted() == [W0, W1, W2]


def test_who_has_not_answered_yet_gets_no_partitions_unless_nobody_has(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    assert stand.workers.wanted() == [W0]
    assert stand.look(0) == [W0]
    stand.answer(W0)
    assert [stand.look(1_000), stand.look(1_000)] == [[W0], [W0]]
    assert stand.workers.wanted() == [W0, W1]
    stand.answer(W0, W1)
    assert stand.look(1_000) == [W0, W1]
    stand.statuses[W1] = {"state": "silent", "reason": "dead"}
    assert stand.look(0) == [W0, W1], "it starts again within seconds: its partitions wait for it"


def test_one_that_is_too_many_is_there_until_it_holds_nothing(tmp_path: Path) -> None:
    stand = Stand(tmp_path, there=(0, 1))
    stand.answer(W0, W1)
    stand.holding = {W1}
    assert stand.look(0) == [W0, W1]
    assert stand.look(0) == [W0]
    for _ in range(5):
        assert stand.look(0) == [W0]
        assert stand.workers.wanted() == [W0, W1]
    assert (told := told_workers(tmp_path)) and told.draining == (W1,)
    stand.holding.clear()
    stand.look(0)
    assert stand.workers.wanted() == [W0]
    asked = len(stand.asked)
    stand.look(0)
    assert len(stand.asked) == asked
    assert (told := told_workers(tmp_path)) and told.draining == ()


def test_one_that_is_being_drained_reads_again_when_it_is_wanted(tmp_path: Path) -> None:
    stand = Stand(tmp_path, there=(0, 1))
    stand.answer(W0, W1)
    stand.holding = {W1}
    assert [stand.look(0), stand.look(0)] == [[W0, W1], [W0]]
    assert [stand.look(1_000), stand.look(1_000)] == [[W0], [W0, W1]]
    assert stand.workers.wanted() == [W0, W1]


def test_those_that_an_earlier_node_left_go_on_and_those_over_the_bound_are_drained(tmp_path: Path) -> None:
    stand = Stand(tmp_path, there=(0, 1, 2, 3, 6), workers_max=3)
    stand.holding = {worker_name(6)}
    assert stand.look(0) == [W0, W1, W2]
    assert stand.workers.wanted() == [W0, W1, W2, worker_name(6)]
    assert stand.asked == [W3, worker_name(6)]


def test_partitions_that_cannot_be_read_make_no_workers(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.answer(W0)
    assert {tuple(stand.look(1_000, note="a batch is damaged")) for _ in range(9)} == {(W0,)}
    assert (told := told_workers(tmp_path)) and told.wanted == 1


@pytest.mark.parametrize("state", ["waiting", "stopped"])
def test_workers_that_wait_for_a_store_get_no_company(tmp_path: Path, state: str) -> None:
    stand = Stand(tmp_path)
    stand.answer(W0, state=state, reason="the log is full")
    for _ in range(9):
        stand.look(1_000)
    assert stand.workers.wanted() == [W0]
    assert (told := told_workers(tmp_path)) and told.reason.endswith("workers wait: the log is full")


def test_what_is_told_has_the_last_change_and_its_reason(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.answer(W0)
    for _ in range(2):
        stand.look(1_000)
    told = told_workers(tmp_path)
    assert told is not None
    assert (told.wanted, told.ready, told.least, told.most, told.changed) == (2, 1, 1, 4, 2.0)
    assert told.change == "1 → 2: lag 1,000 records, 0 s, steady"
    stand.look(1_000)
    assert (again := told_workers(tmp_path)) and (again.change, again.changed) == (told.change, told.changed)
    assert again.reason.endswith("1 of 2 workers are starting")
    tell_workers(tmp_path, told)
    assert told_workers(tmp_path) == told
    forget_workers(tmp_path)
    forget_workers(tmp_path)
    assert told_workers(tmp_path) is None


def test_tenants_that_read_far_more_are_slowed_on_a_busy_host_and_no_worker_comes_for_what_they_leave(
    tmp_path: Path,
) -> None:
    stand, read = Stand(tmp_path, cores_free=0.8), {"big": 0, "small": 0}

    def pace(big: int, small: int, waits: int = 99_999) -> dict[str, float]:
        stand.now += 1.0
        read.update(big=read["big"] + big, small=read["small"] + small)
        return stand.workers.pace(dict(read), {"big": waits})

    stand.answer(W0, host_cpu=0.7, cores=2)
    assert pace(0, 0) == {}
    assert pace(9_000, 100) == {"big": 4_500}, "0.6 of a core is free"
    for _ in range(9):
        stand.look(1_000)
    assert stand.workers.wanted() == [W0]
    assert (told := told_workers(tmp_path)) and "tenants are slowed" in told.reason
    stand.statuses = {W0: {"state": "silent", "reason": "it does not answer"}}
    assert [pace(4_500, 100) for _ in range(9)][-1] == {"big": 4_500}, "who is silent is not idle"
    stand.answer(W0, host_cpu=0.5, cores=2)
    for _ in range(9):
        caps = pace(500, 100, waits=0)
    assert caps == {}
    for _ in range(14):
        stand.look(1_000)
    assert len(stand.workers.wanted()) > 1, "it is long ago"


@pytest.mark.parametrize(
    ("status", "slows"),
    [
        ({"host_cpu": 0.98, "cores": 64}, True),
        ({"host_cpu": 0.9, "cores": 64}, False),
        ({"host_cpu": 0.9, "cores": 64, "cpu": 1.0}, False),
        ({"host_cpu": None, "cores": 64}, False),
        ({"host_cpu": 1.0}, False),
    ],
)
def test_busy_is_a_host_without_the_cores_that_are_to_be_free(
    tmp_path: Path, status: dict[str, Any], slows: bool
) -> None:
    stand = Stand(tmp_path, cores_free=2.0)
    stand.answer(W0, **status)
    for at in (1.0, 2.0):
        stand.now = at
        caps = stand.workers.pace({"big": round(9_000 * (at - 1)), "small": round(100 * (at - 1))}, {})
    assert bool(caps) is slows


def test_nobody_is_slowed_where_no_core_has_to_be_free(tmp_path: Path) -> None:
    stand = Stand(tmp_path, cores_free=0.0)
    stand.answer(W0, host_cpu=1.0, cores=2)
    for at in (1.0, 2.0):
        stand.now = at
        caps = stand.workers.pace({"big": round(9_000 * (at - 1)), "small": round(100 * (at - 1))}, {})
    assert caps == {}
