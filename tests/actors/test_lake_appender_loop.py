"""The lake appender's loop: it rests where it has left nothing behind, and no longer than until it is asked."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from actors.lake_appender import Step
from actors.lake_appender_actor import LakeAppenderLoop
from cluster.config import LakeSettings
from tests.faults.harness import wait_until


def test_it_reads_on_while_there_may_be_more_then_rests_until_it_is_asked_or_ended() -> None:
    steps, flushed = list[bool](), list[int]()

    def step(block_ms: int) -> Step:
        steps.append(len(steps) < 3)
        return Step(1, 0, False, steps[-1])

    stack: Any = SimpleNamespace(
        settings=SimpleNamespace(lake=LakeSettings(interval_ms=10_000)),
        control=SimpleNamespace(positions=SimpleNamespace(least=dict)),
    )
    appender: Any = SimpleNamespace(step=step, flush=lambda: flushed.append(len(steps)))
    loop, nothing = LakeAppenderLoop(stack), SimpleNamespace()
    thread = threading.Thread(target=loop._loop, args=(nothing, nothing, appender), daemon=True)
    thread.start()
    wait_until(lambda: len(steps) == 4, 5.0, "three that leave something, and one")
    thread.join(0.3)
    assert len(steps) == 4, "it rests"
    loop.flush()
    wait_until(lambda: flushed == [5], 5.0, "it is asked, and does not rest on")
    loop.stop()
    thread.join(5.0)
    assert not thread.is_alive()
    assert flushed[-1] >= 5
