"""A process whose children take a snapshot or keep the lake, and are killed at a step.

    with Mortal(lake_folder, snapshots_folder, LakeSettings()) as mortal:
        mortal.run("snapshot")        # the names of all its steps: it came to its end
        mortal.run("compaction", 7)   # nothing: SIGKILL before the seventh thing that it does to the disk

Children are forked, so that only the first one pays for the imports.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog

from cluster.config import LakeSettings
from cluster.stores import lake_files, places
from cluster.stores.files import Failpoint
from cluster.stores.lake import Lake
from workloads.snapshot.create import create_snapshot

_ROOT = Path(__file__).parents[2]
_KEEPING = (
    (lake_files, "_write", "data.write"),
    (places._AsideFile, "publish", "data.rename"),
    (places.LocalPlace, "sync", "data.sync"),
    (lake_files._File, "create", "metadata.write"),
    (places.LocalPlace, "write", "metadata.sync"),
    (SqlCatalog, "commit_table", "commit"),
    (Path, "unlink", "remove"),
)
"""What maintenance of the lake does to the disk and to the catalog, and the step before it."""


class Mortal:
    """See the module. For one thread."""

    def __init__(self, lake: Path, snapshots: Path, settings: LakeSettings) -> None:
        script = "import sys; from tests.faults.mortal import serve; serve(*sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(lake), str(snapshots), settings.model_dump_json()],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def __enter__(self) -> Mortal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()

    def run(self, what: str, die_at: int = 0) -> list[str]:
        """Does `snapshot` or `compaction`; returns the steps it went through, none if it was killed at one."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        print(what, die_at, file=process.stdin, flush=True)
        *steps, ended = process.stdout.readline().split()
        assert (ended == "0") if steps else (ended == str(-signal.SIGKILL)), f"{what} ended with {ended}"
        return steps


def serve(lake: str, snapshots: str, settings: str) -> None:
    """Reads lines `what die_at` and answers each with the steps that a child went through, and how it ended."""
    for line in sys.stdin:
        what, die_at = line.split()
        reading, writing = os.pipe()
        if not (child := os.fork()):
            _live(what, int(die_at), Path(lake), Path(snapshots), LakeSettings.model_validate_json(settings), writing)
        os.close(writing)
        with os.fdopen(reading) as steps:
            said = steps.read()
        print(said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _live(what: str, die_at: int, folder: Path, snapshots: Path, settings: LakeSettings, writing: int) -> None:
    steps: list[str] = []

    def failpoint(step: str) -> None:
        steps.append(step)
        if len(steps) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        with Lake.open(folder, create=False, settings=settings) as lake:
            if what == "snapshot":
                create_snapshot(lake, snapshots, time.time(), failpoint=failpoint)
            else:
                for place, name, step in _KEEPING:
                    setattr(place, name, _after(failpoint, step, getattr(place, name)))
                lake.maintain(time.time())
        os.write(writing, " ".join(steps or ["nothing"]).encode())
        status = 0
    finally:
        os._exit(status)


def _after(failpoint: Failpoint, step: str, whole: Callable[..., Any]) -> Callable[..., Any]:
    def stepping(*args: Any, **named: Any) -> Any:
        failpoint(step)
        return whole(*args, **named)

    return stepping
