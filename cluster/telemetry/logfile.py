"""A log file that several processes append to, kept small by one of them.

    the owner:         set_aside(path, …)     node.log ─► node.log.1 ─► node.log.2 …, the oldest goes
    whoever appends:   is_behind(path, descriptor) ─► open_to_append(path)

Nobody waits for anybody. A process that has looked a moment too early writes one more line to the file that was set
aside; that is kept too, so no line is torn or lost until its file is the oldest.
"""

from __future__ import annotations

import os
from pathlib import Path

_STDOUT, _STDERR = 1, 2


def open_to_append(path: Path) -> int:
    """A descriptor whose writes go to the end of the file, whoever else writes there. Created for this user alone."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def is_behind(path: Path, descriptor: int) -> bool:
    """Whether the path leads to the file of this descriptor still."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def set_aside(path: Path, limit_bytes: int, files: int) -> bool:
    """Moves a file over the limit aside and says whether it did. For the one process that owns it. Raises OSError.

    What this process prints follows, where it went to the file.

    Args:
        files: older ones that are kept.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    printed = [number for number in (_STDOUT, _STDERR) if _leads_to(number, path)]
    for number in range(files - 1, 0, -1):
        if _older(path, number).exists():
            _older(path, number).replace(_older(path, number + 1))
    path.replace(_older(path, 1))
    for number in printed:
        descriptor = open_to_append(path)
        os.dup2(descriptor, number)
        os.close(descriptor)
    return True


def _leads_to(descriptor: int, path: Path) -> bool:
    try:
        return is_behind(path, descriptor)
    except OSError:  # it is closed
        return False


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
