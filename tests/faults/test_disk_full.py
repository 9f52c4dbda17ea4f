"""Row 13: disks of 32 MB that fill up: clean errors, and everything goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.embedded import alive
from cluster.errors import Unavailable
from tests.faults.harness import Installation, Producer, check, events, wait_until

pytestmark = [pytest.mark.services]
Disk = Callable[[Path], Path]


@pytest.fixture
def small_disk() -> Iterator[Disk]:
    """`small_disk(folder)`: a file system of 32 MB there; returns the file that `fill` may fill it with."""
    mounted: list[Path] = []

    def mount(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = "size=32m,mode=700"
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if made.returncode:
            pytest.skip(f"a small disk needs root and mount: {made.stderr.decode().strip()}")
        mounted.append(folder)
        return folder / "filler"

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def fill(filler: Path, leave_bytes: int = 0) -> None:
    """Takes all room but some."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)) == 1 << 16:
            pass
    size = filler.stat().st_size
    assert size < 32 << 20
    os.truncate(filler, max(0, size - leave_bytes))


def test_log_on_a_full_disk(server_root: Path, small_disk: Disk) -> None:
    """Nothing is acknowledged that is not on disk; the producer waits and goes on."""
    root = server_root / "fl"
    with Installation(root) as system:
        filler = small_disk(system.spec("log").folder)
        try:
            system.start()
            fill(filler, leave_bytes=200 << 10)
            producer = Producer(system, events(13, 6_000)).start()
            wait_until(lambda: not alive(system.running["log"]) or bool(producer.refused), message="the disk is full")
            assert producer.sent < 6_000
            filler.unlink()
            system.restart("log")
            history = producer.join()
            system.settle()
            check(system, history)
        finally:
            producer.stopping = True
            system.stop_loops()
            system.kill("log")


def test_shard_checkpoint_on_a_full_disk(server_root: Path, small_disk: Disk) -> None:
    """The save fails with an error that says why, the old checkpoint stays, the shard goes on; the next save works."""
    with Installation(server_root / "fs") as system:
        filler = small_disk(system.spec("shard-0").folder)
        try:
            system.start()
            histories = [Producer(system, events(1, 1_000)).send()]
            system.settle()
            system.checkpoint("shard-0")
            old = system.spec("shard-0").dump_file.read_bytes()
            fill(filler)
            histories.append(Producer(system, events(2, 1_000, start=1_001)).send())
            system.settle()
            with pytest.raises(Unavailable, match="free disk space"):
                system.saves("shard-0").save(system.running["shard-0"])
            assert system.spec("shard-0").dump_file.read_bytes() == old
            check(system, *histories)
            filler.unlink()
            system.checkpoint("shard-0")
            assert system.spec("shard-0").dump_file.read_bytes() != old
            system.kill("shard-0")
            system.restart("shard-0")
            system.settle()
            check(system, *histories)
        finally:
            system.stop_loops()
            system.kill("shard-0")


def test_lake_on_a_full_disk(server_root: Path, small_disk: Disk) -> None:
    """The appender waits with a clear reason, shards go on, and it takes everything when there is room."""
    root = server_root / "fk"
    with Installation(root) as system:
        filler = small_disk(root / "lake")
        system.start(lake=True)
        lake = system.lake
        assert lake is not None
        wait_until(lambda: lake.state == "running")
        fill(filler)
        history = Producer(system, events(3, 2_000)).send()
        system.settle()
        wait_until(lambda: lake.state == "waiting", message="the appender waits")
        assert "space" in lake.reason
        filler.unlink()
        wait_until(lambda: lake.records == len(history.ok), message="the lake has everything")
        check(system, history)
        system.stop_loops()
