"""An installation of its own, and `intelgraph` as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.forked import Forked

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 400.0
MAIN = "from serve_apps.cli.main import main; main()"
IMPORTED = (
    "serve_apps.cli.main", "serve_apps.node", "actors.loads", "actors.ownership", "serve_apps.cli.conservation",
    "workloads.snapshot.verify",
)  # fmt: skip
"""What most commands import, and what takes most of the time of a small one."""


class Installation:
    """A state directory, and `intelgraph` as a user types it."""

    def __init__(self, state_dir: Path, **settings: str) -> None:
        self.state_dir = state_dir
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "INTELGRAPH"))}
        quiet = {"INTELGRAPH__SHARDS__CANARY_S": "0"}  # nothing is appended but what the test says
        ours = {"PYTHONPATH": str(ROOT), "INTELGRAPH__QUERY__PORT": "18080", **quiet, **settings}
        self.environment = {**inherited, **ours}
        self.python = Forked(IMPORTED, self.environment)

    def run(self, *arguments: str, exit_code: int = 0, typed: bool = False) -> dict[str, Any]:
        """The JSON document of a command that has to end with `exit_code`.

        Args:
            typed: by the program itself, as `typed` does; else by a process of its own that finds its imports done.
        """
        if typed:
            done = self.typed("--json", *arguments)
        else:
            words = ("--state-dir", str(self.state_dir), "--json", *arguments)
            done = self.python.run(MAIN, *words, timeout_s=TIMEOUT_S)
        assert done.returncode == exit_code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def typed(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command as it is typed, whatever becomes of it."""
        command = [*self.program, *arguments]
        given: dict[str, Any] = {"env": self.environment, "capture_output": True, "text": True, "timeout": TIMEOUT_S}
        return subprocess.run(command, check=False, **{**given, **options})

    @property
    def program(self) -> list[str]:
        """The words before a verb."""
        return [sys.executable, "-m", "serve_apps.cli.main", "--state-dir", str(self.state_dir)]


@contextmanager
def temporary(section: str = "", config: Mapping[str, Any] | None = None, **settings: str) -> Iterator[Installation]:
    """An installation that is down and gone at the end of the block.

    Args:
        section: of the configuration, whose settings these are.
        config: what its configuration file says.
    """
    folder = Path(tempfile.mkdtemp(prefix="ig"))  # sockets want a short path
    environment = {f"INTELGRAPH__{section}__{name}": value for name, value in settings.items()}
    if config is not None:
        (folder / "intelgraph.yaml").write_text(yaml.safe_dump(dict(config)))
        environment["INTELGRAPH_CONFIG"] = str(folder / "intelgraph.yaml")
    made = Installation(folder, **environment)
    try:
        yield made
    finally:
        with made.python:
            made.run("down")
        shutil.rmtree(folder)


def people(path: Path, first: int, last: int) -> str:
    """A file of people, a case in nine each; its path."""
    events = [
        {"case": f"c{n % 9}", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{n}", "props": {"n": n}}
        for n in range(first, last)
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return str(path)
