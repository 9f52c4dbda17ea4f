"""Memory of processes, from /proc, and whether it grows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import linear_regression

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


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
