"""Row 14: fsync fails, and the power goes. Nothing is acknowledged that is not durable: log, control store, lake,
snapshots.

SIGKILL alone never tests this: what a process has written outlives it. So each store is watched at its system calls,
and files are cut to what was synced.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import uuid
from pathlib import Path

import pytest

from cluster.embedded import Running, alive
from cluster.stores.lake import Lake
from tests.faults.acknowledging import REFUSED
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds
from tests.faults.traced import Synced, Traced

pytestmark = [pytest.mark.services]


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_the_log_cannot_sync_and_the_power_goes(server_root: Path, seed: int) -> None:
    """Row 14: a sync of the log fails and the power goes. What was not synced is lost, nothing acknowledged is.

    Every other seed leaves a part of what was not synced, as a disk may: the log then ends within an entry.
    """
    rnd, root = random.Random(seed), server_root / f"pl{seed}"
    records = events(seed, 20_000 if is_long(seed) else 2_000)
    with Installation(root) as system:
        system.start()
        producer = Producer(system, records)
        try:
            histories = [Producer(system, events(seed, 100, start=len(records) + 1)).send()]
            log, synced = system.running["log"], rnd.randrange(10, 30)
            fails = f"fdatasync:error=EIO:when={synced + 1}+"
            with Traced.process(log.pid, root / "trace", inject=fails) as traced:
                system.recording.mark("the log cannot sync")
                producer.start()
                wait_until(lambda: not alive(log), message="a log that cannot sync ends")
            seen, file = Synced(traced.lines(), under=log.spec.folder), _appended(log)
            assert (seen.syncs, seen.failed_syncs) == (synced + 1, 1)
            assert seen.told >= synced
            assert seen.broken == []
            _cut(file, seen.unsynced(file), rnd if seed % 2 == 0 else None)
            system.restart("log")
            histories.append(producer.join())
            assert producer.refused, "who waits for an answer is told that it is not known"
            system.settle()
            check(system, *histories)
        finally:
            producer.stopping = True
            system.stop_loops()


def _cut(file: Path, unsynced_bytes: int, rnd: random.Random | None) -> None:
    """The power goes: a file loses what was not synced, or all but a part of it.

    It is cut from its end: what was there before the trace began is not in the trace.
    """
    assert unsynced_bytes > 0, "nothing was lost: the power went at a moment without any danger"
    lost = unsynced_bytes if rnd is None else rnd.randint(1, unsynced_bytes)
    os.truncate(file, file.stat().st_size - lost)


def _appended(log: Running) -> Path:
    """The log server's file that grows."""
    (file,) = log.spec.folder.rglob("*.incr.aof")
    return file


@pytest.mark.parametrize(("what", "count"), [("control", 12), ("lake", 4), ("snapshots", 2)])
def test_what_is_acknowledged_is_synced(tmp_path: Path, what: str, count: int) -> None:
    """Row 14: each commit of control store and lake, and each snapshot, is durable when its caller goes on."""
    traced = _child(what, tmp_path, count)
    ended = traced.run()
    assert ended.returncode == 0, ended.stderr[-2_000:]
    seen = Synced(traced.lines(), under=tmp_path / "data")
    assert seen.told == len(ended.stdout.split())
    assert seen.syncs >= seen.told
    assert seen.broken == []


@pytest.mark.parametrize(("what", "call"), [("control", "fdatasync"), ("lake", "fsync"), ("lake", "fdatasync")])
def test_a_sync_that_fails_is_a_clean_error(tmp_path: Path, what: str, call: str) -> None:
    """Row 14: whoever cannot sync says so and acknowledges nothing more; what was acknowledged before is read again."""
    ended = _child(what, tmp_path, 3).run()  # so that the faults meet no store that is only being made
    assert ended.returncode == 0, ended.stderr[-2_000:]
    before = _durable(what, tmp_path / "data")
    failing = _child(what, tmp_path, 8, inject=f"{call}:error=EIO:when={4 if what == 'control' else 3}+")
    ended = failing.run()
    seen = Synced(failing.lines(), under=tmp_path / "data")
    assert seen.failed_syncs
    assert ended.returncode == REFUSED, ended.stderr[-2_000:]
    assert _durable(what, tmp_path / "data") >= before + len(ended.stdout.split())
    assert seen.broken == []


def _child(what: str, folder: Path, count: int, inject: str = "") -> Traced:
    data = folder / "data"
    data.mkdir(exist_ok=True, mode=0o700)
    script = [sys.executable, "-m", "tests.faults.acknowledging", what, str(data), str(count)]
    return Traced(folder / f"trace-{uuid.uuid4().hex[:6]}", script, inject)


def _durable(what: str, data: Path) -> int:
    """How much a store has when it is opened again."""
    if what == "control":
        with sqlite3.connect(data / "control.db") as connection:
            return int(connection.execute("SELECT count(*) FROM sources").fetchone()[0])
    with Lake.open(data / "lake", create=False) as lake:
        return lake.positions().of(0).number
