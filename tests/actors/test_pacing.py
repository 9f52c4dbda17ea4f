"""Caps of tenants that read far more than others on a busy host; a look is a second."""

from __future__ import annotations

from math import inf

import pytest

from actors.pacing import Pace, paced

BUSY, CALM, BETWEEN = 1.1, 0.5, 0.95


class Looks:
    """One look after the other."""

    def __init__(self) -> None:
        self.pace, self._read = Pace(read={"big": 0, "small": 0}), {"big": 0, "small": 0}

    def look(
        self, busy: float, big: int, small: int, times: int = 1, waits: int = 99_999, small_waits: int = 0
    ) -> Pace:
        for _ in range(times):
            self._read = {"big": self._read["big"] + big, "small": self._read["small"] + small}
            self.pace = paced(self.pace, self.pace.at + 1.0, self._read, {"big": waits, "small": small_waits}, busy)
        return self.pace


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_one_alone_takes_all_there_is(looks: Looks) -> None:
    assert looks.look(BUSY, 9_000, 0, times=5).slowed == ""


def test_those_that_read_alike_take_all_there_is(looks: Looks) -> None:
    assert looks.look(BUSY, 9_000, 6_000, times=5).slowed == ""


def test_nobody_is_slowed_while_there_is_cpu_left(looks: Looks) -> None:
    assert looks.look(CALM, 9_000, 100, times=5).slowed == ""
    assert looks.look(BETWEEN, 9_000, 100, times=5).slowed == ""


def test_who_reads_far_more_gets_half_at_once_then_less_down_to_a_quarter(looks: Looks) -> None:
    assert looks.look(BUSY, 8_000, 100).slowed == "big"
    assert looks.pace.cap == 4_000
    assert looks.look(BUSY, 4_000, 100).cap == 3_200
    assert looks.look(BUSY, 3_200, 100, times=9).cap == 2_000


def test_a_cap_stays_over_twice_of_what_others_read(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 3_000, times=9)
    assert looks.look(BUSY, 6_000, 3_000, times=9).cap >= 2 * 2_999


def test_a_cap_rises_with_cpu_that_is_left_until_nobody_waits_for_it(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 100)
    assert looks.look(BETWEEN, 4_000, 100, times=3).cap == 4_000
    assert looks.look(CALM, 4_000, 100).cap == pytest.approx(4_600)
    assert looks.look(CALM, 1_000, 100, times=4, waits=10).slowed == "big"
    looks.look(CALM, 1_000, 100, waits=10)
    assert (looks.pace.slowed, looks.pace.cap) == ("", inf)


def test_the_slowed_stays_so_while_others_read_less_than_it(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 1_500)
    assert looks.look(BUSY, 3_000, 1_800, times=12).slowed == "big", "over half by now"
    assert looks.look(BUSY, 3_000, 2_900, times=12).slowed == ""


def test_a_trickle_slows_nobody_and_a_cap_lasts_for_some_looks_without_others(looks: Looks) -> None:
    for n in range(30):
        assert looks.look(BUSY, 8_000, n % 3 == 0).slowed == ""
    looks.look(BUSY, 8_000, 20)
    for _ in range(4):
        assert looks.look(BUSY, 4_000, 0, times=3).slowed == "big"
        assert looks.look(BUSY, 4_000, 20).slowed == "big"
    assert looks.look(BUSY, 4_000, 0, times=12).slowed == ""


def test_a_cap_ends_some_looks_after_others_stopped_however_much_they_read(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 3_000, times=3)
    assert looks.look(BUSY, 6_000, 0, times=4).slowed == "big"
    for _ in range(15):
        assert looks.look(BUSY, 6_000, 0).slowed == "", "nor does it begin again for one that is gone"


def test_a_cap_stays_for_others_that_wait_for_what_they_cannot_read(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 3_000, times=3)
    assert looks.look(BUSY, 6_000, 0, times=9, small_waits=5_000).slowed == "big"


def test_a_cap_that_binds_nobody_ends_however_busy_the_host_is(looks: Looks) -> None:
    looks.look(BUSY, 8_000, 60, times=3)
    assert looks.look(BUSY, 2_000, 60, times=9).slowed == "big"
    looks.look(BUSY, 100, 60, times=4, waits=0)
    assert looks.look(BUSY, 100, 60, waits=0).slowed == ""
    assert looks.look(BUSY, 100, 60, times=9, waits=0).slowed == ""


def test_a_topic_that_was_made_again_and_a_clock_that_stands_are_no_trouble(looks: Looks) -> None:
    before = looks.look(BUSY, 8_000, 100)
    assert paced(before, before.at, {"big": 1}, {}, BUSY) is before
    after = paced(before, before.at + 1.0, {"big": 0, "small": 0, "new": 700}, {}, CALM)
    assert min(after.rates.values()) > 0
    assert "new" not in after.rates, "what it had read before is not known"
