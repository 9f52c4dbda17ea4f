"""Row 15: clocks that jump by an hour, forwards and backwards. No order changes, and nothing expires early."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from actors.push import Push, PushAnswer
from actors.shard_writer_actor import writer_lease
from cluster.errors import Conflict
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds

pytestmark = [pytest.mark.services]

HOUR_S = 3_600.0


class Clock:
    """The wall clock of this process, which jumps when it is told to; writers, appender and pushes all look at it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._time, self._time_ns, self.off_s = time.time, time.time_ns, 0.0
        patch.setattr(time, "time", lambda: self._time() + self.off_s)
        patch.setattr(time, "time_ns", lambda: self._time_ns() + int(self.off_s * 1e9))


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_clocks_that_jump(server_root: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What is pushed last is what shows, whatever the clock said; keys, leases and pins hold; shards, lake and fold are
    the same."""
    rnd, turns = random.Random(seed), 20 if is_long(seed) else 6
    records = events(seed, 20_000 if is_long(seed) else 1_200)
    each = len(records) // turns
    clock = Clock(monkeypatch)
    with Installation(server_root / f"cl{seed}") as system:
        system.start(lake=True)
        control = system.stack.control
        control.sources.register("acme", "crm", time.time())
        pushing = Push(control, system.log, system.settings, clock=lambda: time.time())
        answers: list[PushAnswer] = []
        histories = []
        for turn in range(turns):
            answers.append(_push(pushing, turn))
            histories.append(Producer(system, records[turn * each : (turn + 1) * each]).send())
            clock.off_s = -HOUR_S if turn == turns - 2 else rnd.choice((HOUR_S, -HOUR_S, -10.0, 0.0))
            for earlier in rnd.sample(range(turn + 1), min(3, turn + 1)):
                again = _push(pushing, earlier)
                assert again.replayed, "a key was forgotten"
                assert again.positions == answers[earlier].positions
        clock.off_s = -HOUR_S
        with pytest.raises(Conflict):
            control.leases.acquire(writer_lease("shard-0"), "another", 10.0, time.time())
        system.settle()
        fold = check(system)
        sent = set().union(*(history.ok for history in histories))
        assert sent <= {record for _, _, rows in system.log_records() for record in rows}
        shown = [json.loads(merged.props)["n"] for thing, merged in fold.visible() if thing[0] == "acme"]
        assert shown == [turns - 1], "an older push won"
        with system.stack.open_lake() as lake:
            ends = system.ends()
            wait_until(lambda: all(lake.positions().of(p).number == n for p, n in ends.items()), message="the lake")


def _push(pushing: Push, turn: int) -> PushAnswer:
    event = {"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": "ada", "props": {"n": turn}}
    return pushing.push("acme", ["crm"], json.dumps([event]).encode(), "application/json", f"key {turn}", "crm")
