"""Positions that a read waits for: what a token says, and that none of what is lost is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import LostPosition, Overloaded, Rejected, TooCostly
from cluster.query.lane import TooLate
from cluster.routing import Deadline
from cluster.stores.log import Generation, Seam
from serve_apps.api.app import build
from serve_apps.api.positions import Waited, check_kept, newest, token_of, wait_until_applied, waited_for
from tests.serve_apps.api.stand import Stand
from tests.serve_apps.api.test_changes import push
from tests.serve_apps.api.test_reads import get

SEAMS = {0: Seam(5, 6, 10, 9), 1: Seam(7, 7, 7)}
SECOND, FOURTH = Generation(2, SEAMS), Generation(4, {0: Seam(20, 20, 21), 1: Seam(9, 9, 9)})
BOTH = (SECOND, FOURTH)


@given(st.dictionaries(st.integers(0, 4095), st.integers(0, 10**18), min_size=1, max_size=5), st.integers(1, 10**6))
def test_a_token_says_what_it_was_made_of(positions: dict[int, int], generation: int) -> None:
    assert waited_for(token_of(positions, generation)) == Waited(positions, generation)


def test_a_token_of_the_first_generation_says_none() -> None:
    assert token_of({3: 204, 0: 1}) == "0:1,3:204"
    assert token_of({3: 204}, newest(BOTH)) == "3:204@4"
    assert newest(()) == 1


@pytest.mark.parametrize("token", ["", "@2", "3:7@", "3:7@0", "3:7@-1", "3:7@x", "3:7@2@3", "3:7@1234567890", "3:7@２"])
def test_what_is_none_is_refused(token: str) -> None:
    with pytest.raises(Rejected, match="wait_for"):
        waited_for(token)


@pytest.mark.parametrize(
    ("waited", "lost"),
    [
        (Waited({0: 6, 1: 7}), False),
        (Waited({0: 9}), False),  # shards had it, and its facts are appended again
        (Waited({0: 10}), True),
        (Waited({1: 8}), True),
        (Waited({1: 8}, 2), False),
        (Waited({0: 20}, 2), False),
        (Waited({0: 21}, 2), True),
        (Waited({0: 21}, 3), True),
        (Waited({0: 10**18, 1: 10**18}, 4), False),
        (Waited({7: 10**18}), False),
    ],
)
def test_an_entry_that_a_later_generation_does_not_have_is_refused(waited: Waited, lost: bool) -> None:
    if not lost:
        return check_kept(waited, BOTH)
    with pytest.raises(LostPosition, match="is lost"):
        check_kept(waited, BOTH)
    return None


def test_what_an_appender_of_before_another_number_of_partitions_has_appended_is_waited_for() -> None:
    check_kept(Waited({1: 8}), (Generation(2, {0: Seam(5, 5, 5), 1: Seam(7, 7, 7)}, 4),))


@pytest.fixture
def reopened(stand: Stand) -> Stand:
    """The API of an installation whose log is of its second generation."""
    stand.parts.reached_at = 1_000
    stand.services = replace(stand.services, generations=(SECOND,))
    stand.app = build(stand.services)
    return stand


@pytest.mark.services
def test_a_position_of_before_an_accepted_loss_is_refused_though_its_number_is_reached(reopened: Stand) -> None:
    answer = get(reopened, "/v1/cases?wait_for=0:10")
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:intelgraph:problem:position-lost")
    assert "entry 10 of log partition 0 is lost" in answer.json()["detail"]
    assert get(reopened, "/v1/cases?wait_for=0:6").status_code == 200
    assert get(reopened, "/v1/cases?wait_for=0:10@2").status_code == 200
    assert get(reopened, "/v1/cases?wait_for=0:10@3").status_code == 400


@pytest.mark.services
def test_a_push_is_answered_with_the_generation(reopened: Stand) -> None:
    assert push(reopened).json()["position"] == "3:7@2"


@pytest.mark.parametrize("busy", [Overloaded("busy"), TooCostly("busy"), TooLate("no thread was free")])
def test_who_is_too_busy_to_say_what_is_applied_is_asked_again(busy: Exception) -> None:
    said: list[Exception | bool] = [busy, False, True]

    class Applied:
        async def reached(self, positions: Mapping[int, int], deadline: Deadline) -> bool:
            answer = said.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    asyncio.run(wait_until_applied(Applied(), {0: 1}, Deadline(time.monotonic() + 30.0)))
    assert said == []
