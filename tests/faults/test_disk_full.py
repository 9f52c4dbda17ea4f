"""Row 13: disks of 32 MB that fill up: clean errors, and everything goes on when there is room again."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.embedded import alive
from cluster.errors import Unavailable
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds
from workloads.snapshot.export import state_lines
from workloads.snapshot.job import take_snapshot
from workloads.snapshot.read import open_snapshot
from workloads.snapshot.verify import verify

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


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_log_on_a_full_disk(server_root: Path, small_disk: Disk, seed: int) -> None:
    """Nothing is acknowledged that is not on disk; the producer waits and goes on."""
    rnd, root = random.Random(seed), server_root / f"fl{seed}"
    records = events(seed, 20_000 if is_long(seed) else 6_000)
    with Installation(root) as system:
        filler = small_disk(system.spec("log").folder)
        try:
            system.start()
            fill(filler, leave_bytes=rnd.randrange(100 << 10, 300 << 10))
            producer = Producer(system, records).start()
            wait_until(lambda: not alive(system.running["log"]) or bool(producer.refused), message="the disk is full")
            assert producer.sent < len(records)
            filler.unlink()
            system.restart("log")
            history = producer.join()
            system.settle()
            check(system, history)
        finally:
            producer.stopping = True
            system.stop_loops()
            system.kill("log")


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_shard_checkpoint_on_a_full_disk(server_root: Path, small_disk: Disk, seed: int) -> None:
    """The save fails with an error that says why, the old checkpoint stays, the shard goes on; the next save works."""
    records = events(seed, 20_000 if is_long(seed) else 2_000)
    with Installation(server_root / f"fs{seed}") as system:
        filler = small_disk(system.spec("shard-0").folder)
        try:
            system.start()
            half = random.Random(seed).randrange(len(records) // 4, len(records) // 2)
            histories = [Producer(system, records[:half]).send()]
            system.settle()
            system.checkpoint("shard-0")
            old = system.spec("shard-0").dump_file.read_bytes()
            fill(filler)
            histories.append(Producer(system, records[half:]).send())
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


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_lake_and_snapshots_on_full_disks(server_root: Path, small_disk: Disk, seed: int) -> None:
    """The appender waits with a clear reason, shards go on, and it takes everything when there is room. A snapshot
    fails with a clear error, the old one stays readable, and the next one is whole."""
    root, records = server_root / f"fk{seed}", events(seed, 20_000 if is_long(seed) else 2_000)
    with Installation(root) as system:
        fillers = [small_disk(root / "lake"), small_disk(root / "snapshots")]
        snapshots = fillers[1].parent
        system.start(lake=True)
        lake = system.lake
        assert lake is not None
        wait_until(lambda: lake.state == "running")
        half = random.Random(seed).randrange(len(records) // 4, len(records) // 2)
        histories = [Producer(system, records[:half]).send()]
        first = take_snapshot(system.stack.lake_address, snapshots, system.ends())
        for filler in fillers:
            fill(filler)
        histories.append(Producer(system, records[half:]).send())
        system.settle()
        wait_until(lambda: lake.state == "waiting", message="the appender waits")
        assert "space" in lake.reason
        fillers[0].unlink()
        wait_until(lambda: lake.records == len(records), message="the lake has everything")
        with pytest.raises(Unavailable, match="Free space"):
            take_snapshot(system.stack.lake_address, snapshots, system.ends())
        with open_snapshot(snapshots) as snapshot:
            assert snapshot.id == first.id
            assert verify(snapshot).is_whole
        fillers[1].unlink()
        second = take_snapshot(system.stack.lake_address, snapshots, system.ends())
        fold = check(system, *histories)
        with open_snapshot(snapshots) as snapshot:
            assert (snapshot.id, snapshot.manifest.parent) == (second.id, first.id)
            assert verify(snapshot).is_whole
            assert state_lines(snapshot) == fold.state_lines()
        system.stop_loops()
