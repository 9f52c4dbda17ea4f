"""Memory of processes, from /proc, whether it grows, and how high it got."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from types import TracebackType

_LOOK_S = 0.02


def family(pids: Iterable[int]) -> set[int]:
    """These processes and all their descendants; one that ended is left out."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:  # it has ended
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = set[int](), list(pids)
    while waiting:
        if (pid := waiting.pop()) not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of processes that run, without what they share with files (RssAnon)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    return total


def slope_per_minute(series: Sequence[tuple[float, int]]) -> float:
    """Growth by least squares, bytes a minute, of (seconds, bytes); 0 with fewer than two points."""
    if len(series) < 2:
        return 0.0
    return linear_regression([at_s for at_s, _ in series], [size for _, size in series]).slope * 60


class Peaks:
    """Looks all the time at what each of some processes has, and keeps the most; in a thread of its own.

    Args:
        pids: by name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._most = dict.fromkeys(pids, 0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peaks", daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def taken(self) -> dict[str, int]:
        """The most that each had since the last time, bytes."""
        found, self._most = self._most, dict.fromkeys(self._pids, 0)
        return found

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            most = self._most
            for name, pid in self._pids.items():
                most[name] = max(most[name], resident_bytes([pid]))
