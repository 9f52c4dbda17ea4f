"""Canaries through a real log to real shards: back in no time, and not back when something stands still."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.canary import Canaries, Canary, ShardCanary, told_canaries
from cluster.config import LakeSettings, ShardSettings
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events

pytestmark = [pytest.mark.services]
EVERY_S = 0.1


@contextmanager
def running(turn: Callable[[threading.Event], None]) -> Iterator[None]:
    """In a thread, for a block."""
    stopping = threading.Event()
    thread = threading.Thread(target=turn, args=(stopping,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(10.0)
    assert not thread.is_alive()


@pytest.fixture
def system(server_root: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Two shards with their writers, and a lake; a canary every 0.1 s."""
    with Installation(server_root / f"ca{len(request.node.name)}", shards=2, lake=LakeSettings(commit_s=0.2)) as made:
        often = made.settings.shards.model_copy(update={"canary_s": EVERY_S})
        made.stack.settings = made.settings.model_copy(update={"shards": often})
        yield made.start(lake=True)


def sung(system: Installation) -> dict[str, Canary]:
    return {canary.shard: canary for canary in told_canaries(system.stack.state_dir)}


def test_they_leave_no_trace_but_numbers_of_the_log(system: Installation) -> None:
    history = Producer(system, events(7, 400)).start().join()
    system.settle()
    before = system.hashes()
    with running(Canaries(system.stack).run):

        def back_through_all() -> bool:
            """None is sent before the last is back: so the first is, where there is a second."""
            sent = Counter(partition for partition, _, rows in system.log_records() if not rows)
            return len(sent) == system.partitions and min(sent.values()) >= 2 and len(sung(system)) == 2

        wait_until(back_through_all, message="canaries have come through every partition")
        assert max(canary.seconds or 0.0 for canary in sung(system).values()) < 5.0
    assert not sung(system), "nobody sends them any more"
    system.settle()
    assert system.hashes() == before
    check(system, history)
    assert sum(not rows for _, _, rows in system.log_records()) >= system.partitions
    with system.stack.open_lake() as lake:
        wait_until(lambda: all(lake.positions().of(p).number == n for p, n in system.ends().items()))


def test_one_that_stands_still_tells_so_and_holds_no_other_up(system: Installation) -> None:
    with running(Canaries(system.stack).run):
        came_back = set[str]()

        def each_is_back() -> bool:
            """One after the other will do: the next is on its way soon after."""
            came_back.update(canary.shard for canary in sung(system).values() if canary.seconds is not None)
            return len(came_back) == 2

        wait_until(each_is_back, message="one of each shard is back")
        system.stop_writer("shard-1")
        wait_until(lambda: sung(system)["shard-1"].seconds is None, message="none is back from the shard's cursor")
        waiting, other = sung(system)["shard-1"], sung(system)["shard-0"]
        wait_until(lambda: sung(system)["shard-0"].sent > other.sent + 1.0, message="those of the other go on")
        assert sung(system)["shard-1"] == waiting
        assert waiting.age_s(waiting.sent + 7.0, EVERY_S) == pytest.approx(7.0)
        system.start_writer("shard-1")
        wait_until(lambda: (sung(system)["shard-1"].seconds or 0.0) > 1.0 or sung(system)["shard-1"] != waiting)

        system.kill("shard-0")
        wait_until(lambda: bool(sung(system)["shard-0"].reason), message="the shard does not answer")
        system.restart("shard-0")
        wait_until(lambda: sung(system)["shard-0"].seconds is not None, 60.0, "it is back")


def test_a_log_that_is_away_is_said(system: Installation) -> None:
    canary = ShardCanary(system.stack, "shard-0")
    with running(canary.run):
        wait_until(lambda: canary.last is not None and canary.last.seconds is not None)
        system.kill("log")
        wait_until(lambda: canary.last is not None and bool(canary.last.reason), message="it says why")
        system.restart("log")
        wait_until(lambda: canary.last is not None and canary.last.seconds is not None, 60.0, "it is back")


@pytest.mark.parametrize(
    ("canary", "now", "age"),
    [
        (Canary("s", 0, 100.0, 0.2), 105.0, 0.2),
        (Canary("s", 0, 100.0, None), 105.0, 5.0),
        (Canary("s", 0, 100.0, 0.2), 140.0, 40.0),
        (Canary("s", 0, 100.0, 45.0), 146.0, 45.0),
        (Canary("s", 0, 100.0, None), 90.0, 0.0),
    ],
    ids=["back", "on its way", "nobody sends any", "it took long", "the clock was set back"],
)
def test_the_age_grows_while_none_is_back(canary: Canary, now: float, age: float) -> None:
    assert canary.age_s(now, 10.0) == pytest.approx(age)


def test_none_are_sent_where_they_are_off(tmp_path: Path) -> None:
    class Nothing:
        settings: Any = type("S", (), {"shards": ShardSettings(canary_s=0)})

    Canaries(Nothing()).run(threading.Event())  # type: ignore[arg-type]
