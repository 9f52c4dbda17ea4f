"""Shares of CPU between two readings."""

from __future__ import annotations

import time

from actors.cpu_meter import CpuMeter, CpuShares, Ticks, host_ticks


def test_shares_are_those_of_the_time_between() -> None:
    now, used, host = [0.0], [0.0], [Ticks(100, 1_000)]
    meter = CpuMeter(lambda: now[0], lambda: used[0], lambda: host[0])
    assert meter.read() == CpuShares(0.0, None)
    now[0], used[0], host[0] = 2.0, 1.5, Ticks(400, 1_400)
    assert meter.read() == CpuShares(0.75, 0.75)
    now[0], used[0] = 2.25, 2.0
    assert meter.read() == CpuShares(0.75, 0.75), "too soon"
    now[0], host[0] = 3.0, Ticks(400, 1_400)
    assert meter.read() == CpuShares(0.5, None), "nothing was counted: nothing is known"


def test_a_host_that_does_not_say_is_not_known() -> None:
    now = [0.0]
    meter = CpuMeter(lambda: now[0], lambda: 0.0, lambda: None)
    now[0] = 1.0
    assert meter.read() == CpuShares(0.0, None)


def test_this_host_counts() -> None:
    before = host_ticks()
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    after = host_ticks()
    assert before is not None and after is not None
    assert 0 <= before.busy <= before.all
    assert after.busy >= before.busy
