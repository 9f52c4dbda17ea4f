from __future__ import annotations

import pytest

from actors.retrying import Backoff
from cluster.errors import Fenced, Overloaded, Rejected, Retryable, Unavailable


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def backoff(clock: Clock, deadline_s: float = 60.0) -> Backoff:
    return Backoff(0.1, 2.0, deadline_s, clock.sleep, lambda: clock.now, lambda: 1.0)


def failing(times: int, error: Exception) -> list[Exception | str]:
    return [error] * times + ["done"]


def call(clock: Clock, answers: list[Exception | str], deadline_s: float = 60.0) -> str:
    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return backoff(clock, deadline_s).call(step)


def test_waits_double_up_to_the_longest() -> None:
    clock = Clock()
    assert call(clock, failing(7, Unavailable("down", 0.0))) == "done"
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_an_overloaded_store_says_when_to_come_back() -> None:
    clock = Clock()
    assert call(clock, failing(1, Overloaded("full", 1.5))) == "done"
    assert clock.slept == [1.5]


def test_the_deadline_ends_it_with_the_error() -> None:
    clock = Clock()
    with pytest.raises(Unavailable):
        call(clock, failing(100, Unavailable("down", 0.0)), 5.0)
    assert clock.now <= 5.0


@pytest.mark.parametrize("error", [Fenced("lost"), Rejected("wrong"), ZeroDivisionError()])
def test_what_time_does_not_heal_is_raised_at_once(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        call(clock, failing(1, error))
    assert clock.slept == []


def test_each_retry_is_told() -> None:
    clock, told = Clock(), list[Retryable]()
    answers = failing(2, Unavailable("down", 0.0))

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert backoff(clock).call(step, told.append) == "done"
    assert len(told) == 2
