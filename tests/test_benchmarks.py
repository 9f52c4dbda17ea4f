"""Benchmarks of streams run to their end, in their small sizes: no figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import ALONE, BASELINES, QUICK, ratios

ROOT = Path(__file__).parents[1]


@pytest.mark.production
@pytest.mark.timeout(580)
@pytest.mark.parametrize("name", ["streams", "stream_latency"])
def test_it_runs_to_its_end(name: str) -> None:
    words = [*QUICK[name].split(), *([] if name in ALONE else ["--baselines", str(BASELINES)])]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), *words],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    report = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in report:
        pytest.skip(report["skipped"])
    found = dict(ratios(report))
    assert found and min(found.values()) > 0
