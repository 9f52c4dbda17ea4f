"""Python processes that find their imports done: children of a process that has imported the modules once.

    with Forked(["actors.loads"], environment) as python:
        python.run("import sys; print(sys.argv[1])", "x").stdout    # what `python -c SCRIPT x` does, without the wait

Each script runs in a process of its own, which ends as any Python does: by itself, by an exception, by a signal.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).parents[1]
_SERVE = "import sys; from tests.forked import serve; serve(*sys.argv[1:])"
_RAY = "ray"
"""Never imported before the fork: it reads its environment when it is imported, and a command sets it before that."""


class Forked:
    """See the module. For one thread; the process behind it starts with the first script.

    Args:
        modules: what scripts import anyway.
        environment: of the scripts.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._modules, self._environment = modules, environment
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()

    def run(self, script: str, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """What becomes of a script. Raises subprocess.TimeoutExpired where it had to be killed."""
        self._process = self._process or self._start()
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            asked = {"script": script, "arguments": arguments, "folder": folder, "timeout_s": timeout_s}
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            assert answer, f"the process that forks has gone: {self._process.wait()}"
            stdout, stderr = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
        code = json.loads(answer)
        if code is None:
            raise subprocess.TimeoutExpired(script, timeout_s, stdout, stderr)
        return subprocess.CompletedProcess([script, *arguments], code, stdout, stderr)

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _SERVE, *self._modules], env=self._environment, cwd=_ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip


def serve(*modules: str) -> None:
    """Forks a child for each line that asks for one, and answers with how it ended: its exit code, or null where it
    had to be killed. Returns in the parent alone, when nobody can ask any more."""
    for module in modules:
        importlib.import_module(module)
    assert _RAY not in sys.modules, "a module imports Ray"
    for line in sys.stdin:
        asked = json.loads(line)
        if not (child := os.fork()):
            _become(asked["script"], asked["arguments"], Path(asked["folder"]))
            return
        print(json.dumps(_wait(child, asked["timeout_s"])), flush=True)


def _wait(child: int, timeout_s: float) -> int | None:
    handle = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
    if not ended:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if ended else None


def _become(script: str, arguments: Sequence[str], folder: Path) -> None:
    """Runs a script as this process's only work: nothing of the parent's input and output is left to it."""
    for number, path, flags in (
        (0, Path(os.devnull), os.O_RDONLY),
        (1, folder / "stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 the tests' own scripts
