"""A process that loads a file, replays letters or facts, rebuilds a shard, mends the log or gives it another number of
partitions, and is killed at a step.

It imports no Ray.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from actors.chosen_facts import Chosen
from actors.dead_letters import Replay
from actors.fact_replay import FactReplay
from actors.loads import FileLoads, LoadFile
from actors.mending import mend
from actors.rebuild import rebuild
from actors.repartition import change_number
from actors.stack import Stack
from cluster.config import IngestLimits, Settings
from cluster.stores.files import Failpoint

SOURCE = "feed"
QUICK = IngestLimits(
    batch_records=100, retry_first_s=0.01, retry_most_s=0.1, retry_deadline_s=20, line_bytes=1 << 20,
    dead_letter_attempts=6,
)  # fmt: skip


def dies_at(step: str, nth: int) -> Failpoint:
    """A failpoint that kills this process at a step, the nth time that it comes there."""
    left = nth

    def failpoint(name: str) -> None:
        nonlocal left
        left -= name == step
        if name == step and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return failpoint


def child(what: str, settings: str, tenant: str, path: str, step: str, nth: str) -> None:
    """What a process does that dies: load a file, replay a tenant's dead letters or facts, rebuild a shard, mend the
    log, give it another number of partitions."""
    given = Settings.model_validate_json(settings).model_copy(update={"ingest": QUICK})
    stack, failpoint = Stack(given), dies_at(step, int(nth))
    if what in ("mend", "repartition"):
        if what == "repartition":
            change_number(stack, failpoint)
        mend(stack, failpoint)
        return
    control, log = stack.control, stack.open_log()
    if what == "rebuild":
        rebuild(stack, path, "tester", verify=True, failpoint=failpoint)
    elif what == "facts":
        FactReplay(stack, log, failpoint=failpoint).replay(Chosen(tenant), "tester", rate_per_s=1_000)
    elif what == "load":
        FileLoads(control, log, given, failpoint=failpoint).ingest(LoadFile(Path(path), tenant, SOURCE))
    else:
        Replay(control, log, given, failpoint=failpoint).replay(tenant, "tester")
