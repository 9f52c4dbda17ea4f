"""A shard that is away when a log is opened that has lost its tail: it comes back with numbers that stand for others by
now, and may not go on as if it had these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.away import CAME_BACK, OPENED_WITHOUT, ends_without
from actors.mending import mend
from actors.rebuild import rebuild
from cluster.embedded import checkpoint
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer
from tests.faults.test_lost_tail_faults import COUNT, SetBack

pytestmark = [pytest.mark.services]
AWAY = "shard-1"


class Cut(Exception):
    pass


@contextmanager
def opened_without(folder: Path, *, ahead: bool) -> Iterator[SetBack]:
    """A log that was opened while a shard was away, and has taken other entries since; the shard is back.

    Args:
        ahead: whether it had read entries that the log has lost. Nothing was reported of them.
    """
    with Installation(folder, lease_s=1.0) as system:
        system.start()
        done = SetBack(system, 21)
        owners = system.stack.current_map().owners
        rest = [r for r in done.records[COUNT // 3 :] if owners[r.bucket] == AWAY]
        done.records = [*done.records[: COUNT // 3], *rest]
        done.send(0, COUNT // 3)
        done.run_lake()
        done.copy()
        system.stop_lake()
        half = COUNT // 3 + len(rest) // 2
        if ahead:
            done.send(COUNT // 3, half)
        checkpoint(system.running[AWAY])
        done.set_back()
        system.kill(AWAY)
        assert mend(system.stack) is None
        assert mend(system.stack) is None
        assert len(done.said(OPENED_WITHOUT)) == 1
        done.reopen()
        found = Producer(system, done.records[half:], batch_records=20).send()
        done.history.ok |= found.ok
        assert mend(system.stack) is None
        assert ends_without(system.stack.control.audit, AWAY) != system.ends()
        system.restart(AWAY)
        yield done


def test_a_shard_that_is_ahead_is_refused_until_it_is_rebuilt(server_root: Path) -> None:
    with opened_without(server_root / "saw", ahead=True) as done:
        system = done.system
        writer = system.start_writer(AWAY)
        wait_until(lambda: writer.status.state == "stopped", message="it is refused")
        assert f"shards rebuild {AWAY}" in writer.status.reason
        system.stop_writer(AWAY)
        for step in ("paused", "raised", "emptying", "begun again"):

            def cut(reached: str, step: str = step) -> None:
                if reached == step:
                    raise Cut

            with pytest.raises(Cut):
                rebuild(system.stack, AWAY, "ann", failpoint=cut)
        rebuild(system.stack, AWAY, "ann")
        assert len(done.said(CAME_BACK)) == 1
        done.go_on()
        done.check()


def test_a_shard_that_is_not_ahead_goes_on(server_root: Path) -> None:
    with opened_without(server_root / "sab", ahead=False) as done:
        done.go_on()
        assert len(done.said(CAME_BACK)) == 1
        assert ends_without(done.system.stack.control.audit, AWAY) is None
        done.check()
