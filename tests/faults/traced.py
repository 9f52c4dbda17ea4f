"""What a process had on disk at each moment, by its system calls as `strace` saw them.

    with Traced.process(pid, folder / "trace", inject="fdatasync:error=EIO:when=40+") as traced: …
    Synced(traced.lines(), under=folder).broken    # what was told to somebody before it was durable

A power loss takes what was written and not synced since: `Synced.length` says where it cuts a file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

_CALLS = "write,writev,pwrite64,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
_SYNCS, _TOLD = ("fsync", "fdatasync"), ("socket:", "pipe:", "UNIX")
_LINE = re.compile(r"(?P<pid>\d+)\s+(?:<\.\.\. )?(?P<call>\w+)(?: resumed>|\()(?P<rest>.*)")
_NAMED = re.compile(r"(?P<fd>\d+)<(?P<path>[^>]*)>")
_RESULT = re.compile(r"= (?P<result>-?\d+)(?: .*)?$")
_TARGET = re.compile(r'"(?P<path>[^"]*)"')
_ATTACH_S = 20.0


class Traced:
    """A process under strace, from now on or from its start. Skips the test where there is no strace, or none that may.

    Args:
        inject: what strace does to calls, in its own words.
    """

    def __init__(self, trace: Path, arguments: Sequence[str], inject: str = "") -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed (Debian: apt install strace)")
        self._trace = trace
        injected = ["-e", f"inject={inject}"] if inject else []
        self.command = ["strace", "-f", "-y", "-s", "256", "-e", f"trace={_CALLS}", *injected, "-o", str(trace)]
        self.command += arguments
        self._strace: subprocess.Popen[str] | None = None

    @classmethod
    def process(cls, pid: int, trace: Path, inject: str = "") -> Traced:
        """A process that runs already; use it in a `with`."""
        return cls(trace, ["-p", str(pid)], inject)

    def __enter__(self) -> Traced:
        self._strace = subprocess.Popen(self.command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        if "attached" not in said:
            self._strace.wait(_ATTACH_S)
            pytest.skip(f"strace may not trace here: {said.strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._strace is not None and self._strace.stderr is not None
        self._strace.terminate()
        self._strace.wait(_ATTACH_S)
        self._strace.stderr.close()

    def run(self, deadline_s: float = 240.0) -> subprocess.CompletedProcess[str]:
        """The process from its start to its end."""
        return subprocess.run(
            self.command, capture_output=True, text=True, timeout=deadline_s, cwd=Path(__file__).parents[2]
        )

    def lines(self) -> list[str]:
        """What strace wrote, once the process has gone or the `with` has ended."""
        end = time.monotonic() + _ATTACH_S
        while not self._trace.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return self._trace.read_text(errors="replace").splitlines()


@dataclass
class _File:
    written: int = 0
    synced: int = 0
    bytes_written: int = 0
    bytes_synced: int = 0


class Synced:
    """Which files were durable when something was told: to a socket, or by a line on the standard output.

    A rename and a new folder are durable once the folder that they are in is synced. So is a removed journal of SQLite,
    which is its commit; any other removal may come undone.

    Args:
        under: files elsewhere are of no interest.
        ignored: ends of names that need not be durable.
    """

    def __init__(self, lines: Iterable[str], under: Path, ignored: tuple[str, ...] = ("-shm", ".log")) -> None:
        self._under, self._ignored = f"{under.resolve()}", ignored
        self._files: dict[str, _File] = {}
        self._begun: dict[str, tuple[str, str, int, int]] = {}
        self.told = self.failed_syncs = self.syncs = 0
        self.broken: list[str] = []
        """What was told while something was not durable."""
        for line in lines:
            if found := _LINE.match(line):
                self._saw(found["pid"], found["call"], found["rest"], begins=" resumed>" not in line)

    def length(self, path: Path) -> int:
        """Bytes that were added to a file and synced since the trace began."""
        return self._files.get(f"{path.resolve()}", _File()).bytes_synced

    def unsynced(self, path: Path) -> int:
        """Bytes that were added to a file and not synced."""
        file = self._files.get(f"{path.resolve()}", _File())
        return file.bytes_written - file.bytes_synced

    def _saw(self, pid: str, call: str, rest: str, *, begins: bool) -> None:
        ended, result = _RESULT.search(rest), 0
        if ended is not None:
            result = int(ended["result"])
        if begins:
            self._begin(pid, call, rest)
        if ended is not None and pid in self._begun:
            self._end(*self._begun.pop(pid), result)

    def _begin(self, pid: str, call: str, rest: str) -> None:
        if call.startswith(("rename", "unlink", "mkdir")):
            targets = [found["path"] for found in _TARGET.finditer(rest)]
            self._begun[pid] = (call, targets[-1] if targets else "", 0, 0)
            return
        named = _NAMED.match(rest)
        if named is None:
            return
        path = named["path"]
        if path.startswith(_TOLD) and call not in _SYNCS:
            if path.startswith("pipe:") and named["fd"] != "1":
                return  # of the process to itself
            self.told += 1
            if dirty := [name for name, file in self._files.items() if file.written > file.synced]:
                self.broken.append(f"{rest[:120]} while {dirty} was not synced")
            return
        file = self._of(path)
        if file is not None:
            file.written += call not in _SYNCS
            self._begun[pid] = (call, path, file.written, file.bytes_written)

    def _end(self, call: str, path: str, written: int, bytes_written: int, result: int) -> None:
        if call.startswith("unlink"):
            self._files.pop(path, None)
        names = call.startswith(("rename", "mkdir")) or (call.startswith("unlink") and path.endswith("-journal"))
        if names and result == 0:
            if (folder := self._of(str(Path(path).parent))) is not None:
                folder.written += 1
        elif (file := self._files.get(path)) is not None and call in _SYNCS:
            self.syncs += 1
            self.failed_syncs += result != 0
            if result == 0:
                file.synced = max(file.synced, written)
                file.bytes_synced = max(file.bytes_synced, bytes_written)
        elif file is not None:
            file.bytes_written += max(0, result)

    def _of(self, path: str) -> _File | None:
        if not path.startswith(self._under) or path.endswith(self._ignored):
            return None
        return self._files.setdefault(path, _File())
