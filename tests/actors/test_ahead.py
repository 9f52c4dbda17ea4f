"""When readers rest because no shard waits for more."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest

from actors.ahead import Ahead, Behind, told
from cluster.config_streams import StreamSettings
from cluster.errors import Unavailable
from cluster.stores.control_shards import Shard

NOW = 1_000.0
BUSY = Shard("s0", "unix:///s0", "primary", None, "", "active", 1.0, 1, 50_000, 2.0, NOW)


class Looked:
    """An `Ahead`, the shards that it sees, and its time."""

    def __init__(self, *shards: Shard, **settings: float) -> None:
        self.shards, self.looks, self.now = list(shards), 0, 100.0
        self.error: Exception | None = None
        self.ahead = Ahead(self._look, StreamSettings(**settings), lambda: NOW, lambda: self.now)

    def _look(self) -> Iterable[Shard]:
        self.looks += 1
        if self.error:
            raise self.error
        return self.shards

    def enough(self, after_s: float = 0.0) -> bool:
        self.now += after_s
        return self.ahead.enough()


def behind(id: str, records: int, seconds: float) -> Shard:
    return replace(BUSY, id=id, lag_records=records, lag_seconds=seconds)


def test_who_says_nothing_now_is_not_waited_for_and_holds_nobody_up() -> None:
    silent = replace(BUSY, id="s1", lag_records=0, lag_seconds=0.0, updated=NOW - 3.1)
    ahead_of_time, new = (
        replace(silent, updated=NOW + 3.1),
        replace(silent, lag_records=None, lag_seconds=None, updated=NOW),
    )
    replica, down = replace(silent, role="replica", updated=NOW), replace(silent, state="down", updated=NOW)
    assert told([BUSY, silent, ahead_of_time, new, replica, down], NOW) == [Behind(50_000, 2.0)]
    assert not Looked(silent, ahead_of_time, new, replica, down).enough()
    assert not Looked().enough()


def test_every_shard_has_to_have_passed_both_bounds() -> None:
    for records, seconds, enough in ((50_000, 2.0, True), (50_000, 1.0, False), (20_000, 2.0, False)):
        assert Looked(behind("s0", records, seconds)).enough() is enough, (records, seconds)
        assert Looked(BUSY, behind("s1", records, seconds)).enough() is enough, (records, seconds)
    assert not Looked(BUSY, replace(BUSY, id="s1", state="draining", lag_records=0, lag_seconds=0.0)).enough()
    slow, fast = behind("slow", 25_000, 3.0), behind("fast", 30_000, 0.3)
    assert not Looked(slow, fast).enough(), "a fast one that has more before it than a slow one"
    never = Looked(BUSY, ahead_s=0.0)
    assert not never.enough() and not never.looks


def test_it_looks_now_and_then_sooner_while_readers_rest_and_tells_of_it_for_a_while() -> None:
    seen = Looked(BUSY)
    assert not seen.ahead.reason
    assert seen.enough()
    seen.shards = [behind("s0", 10, 2.0)]
    assert seen.enough(0.05), "it looked a moment ago"
    assert not seen.enough(0.06)
    seen.shards = [BUSY]
    assert not seen.enough(0.2)
    assert seen.looks == 2
    assert "streams.ahead_s" in seen.ahead.reason
    seen.now += 4.7
    assert not seen.ahead.reason


def test_however_long_shards_have_enough_it_is_read_now_and_then() -> None:
    seen = Looked(BUSY)
    found = [(n / 10, seen.enough(0.1)) for n in range(1, 121)]
    read = [at for at, enough in found if not enough]
    assert read == pytest.approx([*(5.1 + n / 10 for n in range(6)), *(10.7 + n / 10 for n in range(6))], abs=0.25)
    assert seen.ahead.reason, "it is said all the while"


def test_where_the_shards_cannot_be_looked_at_it_is_read_and_asked_again_later() -> None:
    seen = Looked(BUSY)
    assert seen.enough()
    seen.error = Unavailable("the control store is away", 1.0)
    assert not seen.enough(0.2)
    assert not seen.enough(0.1)
    assert seen.looks == 2, "not each of its readers"
    seen.error = None
    assert seen.enough(0.3)


def test_a_look_that_hangs_holds_up_nobody_but_who_looks() -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang() -> list[Shard]:
        asked.set()
        assert answer.wait(10.0)
        return [BUSY]

    ahead = Ahead(hang, StreamSettings(), lambda: NOW)
    looking = threading.Thread(target=ahead.enough, daemon=True)
    looking.start()
    assert asked.wait(10.0)
    assert not ahead.enough(), "another reader reads on meanwhile"
    answer.set()
    looking.join(10.0)
    assert ahead.enough()
