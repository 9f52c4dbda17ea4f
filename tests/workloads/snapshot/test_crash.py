"""A process that takes a snapshot dies at any step, or the disk is full: readers see one that is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.config import LakeSettings, SnapshotSettings
from cluster.config_fields import WITH_SECRETS
from cluster.errors import Unavailable
from cluster.stores.lake import Lake, Positions
from tests.cluster.stores.lake_records import claim, entity, relationship
from tests.workloads.snapshot.lakes import fill
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.prune import prune
from workloads.snapshot.read import list_snapshots, open_snapshot
from workloads.snapshot.verify import verify

NOW = 1_800_000_000.0
START = Positions("log", 1)
ROOT = Path(__file__).resolve().parents[3]

DIE = """
import os, sys
from pathlib import Path
from cluster.config import LakeSettings, SnapshotSettings
from cluster.stores.lake import Lake
from cluster.stores.places import open_place
from workloads.snapshot.create import create_snapshot

lake_settings = LakeSettings.model_validate_json(os.environ["LAKE"])
place = open_place(SnapshotSettings.model_validate_json(os.environ["SNAPSHOTS"]), Path(sys.argv[2]))

def take(die_at):
    steps = []
    def failpoint(step):
        if len(steps) == die_at:
            os._exit(66)
        steps.append(step)
    with Lake.open(Path(sys.argv[1]), settings=lake_settings) as lake:
        create_snapshot(lake, place, 1_800_000_000.0, failpoint=failpoint)
    print(*steps, flush=True)
    os._exit(0)

for line in sys.stdin:
    child = os.fork() or take(int(line))
    print("died", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Takes a snapshot in a child, for each number it reads, and lets it die at that step."""


def some(first: int, count: int) -> list[object]:
    people = [entity(f"p{n}", case=f"c{n % 2}", position=n) for n in range(first, first + count)]
    ties = [relationship(f"r{n}", f"p{n}", f"p{n + 2}", case=f"c{n % 2}") for n in range(first, first + count - 2)]
    return [*people, *ties, claim(f"k{first}", f"p{first}", case="c0")]


class Dying:
    """Processes that take a snapshot and die on the way."""

    def __init__(
        self, tmp_path: Path, lake: LakeSettings = LakeSettings(), snapshots: SnapshotSettings = SnapshotSettings()
    ) -> None:
        command = [sys.executable, "-c", DIE, str(tmp_path / "lake"), str(tmp_path / "snapshots")]
        told = {"LAKE": lake, "SNAPSHOTS": snapshots}
        settings = {name: json.dumps(s.model_dump(mode="json", context=WITH_SECRETS)) for name, s in told.items()}
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, **settings},
        )  # fmt: skip

    def take(self, die_at: int) -> list[str]:
        """Words printed before the child ended: none if it died at its step, else the steps it went through."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(die_at, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline().split()
        ended = line if line[:1] == ["died"] else self._process.stdout.readline().split()
        assert ended == ["died", "66" if line is ended else "0"]
        return [] if line is ended else line

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Dying]:
    made = Dying(tmp_path)
    yield made
    made.close()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Lake]:
    """A lake with a snapshot of the first half of what it holds."""
    with Lake.open(tmp_path / "lake") as lake:
        at = fill(lake, START, some(0, 6))  # type: ignore[arg-type]
        create_snapshot(lake, tmp_path / "snapshots", NOW)
        fill(lake, at, some(6, 6))  # type: ignore[arg-type]
        yield lake


@pytest.mark.slow
def test_a_crash_at_every_step(filled: Lake, dying: Dying, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    first = list_snapshots(folder)[0]
    done: list[str] = []
    for die_at in range(200):
        done = dying.take(die_at)
        if done:
            assert die_at == len(done)
            break
        with open_snapshot(folder) as snapshot:
            assert snapshot.id == first.id
            assert verify(snapshot).is_whole
    assert {"registers.write", "edges.rename", "joined_csc.rename", "manifest.write", "manifest.rename"} <= set(done)
    assert done[-2:] == ["pointer.write", "pointer.rename"]
    with open_snapshot(folder) as snapshot:
        assert snapshot.manifest.parent == first.id
        assert verify(snapshot).is_whole
        prune(folder, keep=2)
        assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [first.id, snapshot.id]
    assert not list(folder.rglob("*.aside"))


def test_failing_at_a_step_leaves_nothing_behind(filled: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    first = list_snapshots(folder)[0]
    for wanted in ("registers.rename", "csc.write", "manifest.rename", "pointer.rename"):

        def fail(step: str, wanted: str = wanted) -> None:
            if step == wanted:
                raise OSError(28, "No space left on device")

        with pytest.raises(Unavailable, match="Free space"):
            create_snapshot(filled, folder, NOW, failpoint=fail)
        assert [p.name for p in folder.iterdir() if p.is_dir()] == [first.id]
        assert filled._table.refresh().refs().keys() == {"main"}
    create_snapshot(filled, folder, NOW)
    assert len(list_snapshots(folder)) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield lambda name: folder / name
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(filled: Lake, small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("snapshots")
    first = create_snapshot(filled, folder, NOW)
    ballast = small_disk("ballast")
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2 << 20))
    fill(filled, filled.positions(), some(12, 50))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="Free space"):
        create_snapshot(filled, folder, NOW)
    with open_snapshot(folder) as snapshot:
        assert snapshot.id == first.id
        assert verify(snapshot).is_whole
    ballast.unlink()
    create_snapshot(filled, folder, NOW)
    with open_snapshot(folder) as snapshot:
        assert snapshot.manifest.parent == first.id
        assert verify(snapshot).is_whole
