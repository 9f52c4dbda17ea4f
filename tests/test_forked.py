"""A forked script is told from one of `python -c` by nothing but its speed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "SAID": "here"}
SCRIPTS = {
    "ends": "import sys; print(sys.argv[1:], __name__)",
    "exits": "import sys; sys.exit(4)",
    "exits with words": "import sys; sys.exit('no')",
    "raises": "1 / 0",
    "is killed": "import os; print('x', flush=True); os.kill(os.getpid(), 9)",
    "has something to do at its end": "import atexit; atexit.register(print, 'gone')",
    "reads": "import sys; print(repr(sys.stdin.read()))",
    "looks around": "import os; print(os.environ['SAID'], os.getcwd())",
    "waits for its threads": "import threading, time; threading.Timer(0.05, print, ['late']).start()",
}


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked(["decimal"], ENVIRONMENT) as made:
        yield made


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_ends_as_python_does(forked: Forked, name: str) -> None:
    command = [sys.executable, "-c", SCRIPTS[name], "a", "b c"]
    plain = subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found = forked.run(SCRIPTS[name], "a", "b c")
    assert (found.returncode, found.stdout) == (plain.returncode, plain.stdout)
    assert found.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


def test_imports_are_done_and_nothing_goes_from_one_to_the_next(forked: Forked) -> None:
    first = forked.run("import sys; print('decimal' in sys.modules); sys.modules.pop('decimal'); import cmd")
    second = forked.run("import sys; print('decimal' in sys.modules, 'cmd' in sys.modules)")
    assert (first.stdout, second.stdout) == ("True\n", "True False\n")


def test_one_that_takes_too_long_is_killed_and_the_next_one_runs(forked: Forked) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        forked.run("import os, time; print(os.getpid(), flush=True); time.sleep(600)", timeout_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(raised.value.stdout), 0)
    assert forked.run("print(1)").stdout == "1\n"


def test_ray_is_never_imported_before() -> None:
    with Forked(["ray"], ENVIRONMENT) as early, pytest.raises(AssertionError, match="has gone"):
        early.run("print(1)")
