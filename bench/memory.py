"""What a running system takes of memory: a process and all that it has started."""

from __future__ import annotations

import threading
from pathlib import Path


class Memory:
    """PSS of a process and all that it has started, sampled every second on a thread: MiB.

    The kernel walks every mapping for it: twice a second took an eighth of a core.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._done, self.samples = pid, threading.Event(), list[float]()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(1.0):
            self.samples.append(sum(_pss_kib(pid) for pid in _tree(self._pid)) / 1024)


def _tree(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    found, new = {root}, {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
