"""What a process imports at its start: some ten of them start with the system, and a command is one, too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = {
    "aiokafka": "the log may be Redis'",
    "alembic": "the control store's schema is the newest already",
    "numba": "kernels run in overlay jobs",
    "pandas": "Arrow imports it to make arrays from Python, and only because it is there",
    "pyiceberg.catalog": "the lake is opened by who reads or writes it",
    "scipy": "kernels run in overlay jobs",
}
"""Packages that take tenths of a second of CPU each, and why most processes do without."""
NEEDED = {"actors.stream_worker_actor": {"aiokafka"}, "serve_apps.serve": {"pandas"}}  # the latter: Ray Serve itself


@pytest.mark.parametrize(
    "module",
    [
        "actors.ingest_actor", "actors.lake_appender_actor", "actors.shard_writer_actor", "actors.stream_worker_actor",
        "actors.supervisor", "serve_apps.cli.main", "serve_apps.node", "serve_apps.serve",
    ],
)  # fmt: skip
def test_what_few_processes_need_is_imported_by_those(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps([n for n in {sorted(SLOW)} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found = set(json.loads(done.stdout)) - NEEDED.get(module, set())
    assert not found, {name: SLOW[name] for name in found}
