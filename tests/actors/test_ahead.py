"""When readers rest because no shard waits for more."""

from __future__ import annotations

from dataclasses import replace

from actors.ahead import Ahead, Behind, least_behind
from cluster.config_streams import StreamSettings
from cluster.stores.control_shards import Shard

NOW = 1_000.0
BUSY = Shard("s0", "unix:///s0", "primary", None, "", "active", 1.0, 1, 50_000, 2.0, NOW)


def test_the_shard_that_has_least_before_it_counts() -> None:
    idle = replace(BUSY, id="s1", lag_records=0, lag_seconds=0.0)
    assert least_behind([BUSY, replace(BUSY, id="s2", lag_records=70_000)], NOW) == Behind(50_000, 2.0)
    assert least_behind([BUSY, idle], NOW) == Behind(0, 0.0)
    assert least_behind([BUSY, replace(idle, state="draining")], NOW) == Behind(0, 0.0)


def test_who_says_nothing_now_is_not_waited_for_and_holds_nobody_up() -> None:
    silent = replace(BUSY, id="s1", lag_records=0, lag_seconds=0.0, updated=NOW - 3.1)
    ahead_of_time, new = (
        replace(silent, updated=NOW + 3.1),
        replace(silent, lag_records=None, lag_seconds=None, updated=NOW),
    )
    replica, down = replace(silent, role="replica", updated=NOW), replace(silent, state="down", updated=NOW)
    assert least_behind([BUSY, silent, ahead_of_time, new, replica, down], NOW) == Behind(50_000, 2.0)
    assert least_behind([silent, ahead_of_time, new, replica, down], NOW) == Behind()
    assert least_behind([], NOW) == Behind()


def test_both_bounds_have_to_be_passed() -> None:
    found = [BUSY]
    for records, seconds, enough in ((50_000, 2.0, True), (50_000, 1.0, False), (20_000, 2.0, False)):
        found[:] = [replace(BUSY, lag_records=records, lag_seconds=seconds)]
        assert Ahead(lambda: found, StreamSettings(), lambda: NOW).enough() is enough, (records, seconds)
    found[:] = [BUSY]
    assert not Ahead(lambda: found, StreamSettings(ahead_s=0.0), lambda: NOW).enough()


def test_it_looks_now_and_then_sooner_while_readers_rest_and_tells_of_it_for_a_while() -> None:
    found, looks, ticks = [BUSY], [0], [100.0]

    def shards() -> list[Shard]:
        looks[0] += 1
        return found

    ahead = Ahead(shards, StreamSettings(), lambda: NOW, lambda: ticks[0])
    assert not ahead.reason
    assert ahead.enough()
    found[:] = [replace(BUSY, lag_records=10)]
    ticks[0] += 0.05
    assert ahead.enough(), "it looked a moment ago"
    ticks[0] += 0.06
    assert not ahead.enough()
    found[:] = [BUSY]
    ticks[0] += 0.2
    assert not ahead.enough()
    assert looks == [2]
    assert "streams.ahead_s" in ahead.reason
    ticks[0] += 4.7
    assert not ahead.reason
