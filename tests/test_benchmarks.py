"""Benchmarks of streams run to their end, in their small sizes: no figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import ALONE, BASELINES, QUICK, ratios

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.production, pytest.mark.timeout(600)]
_LONGEST_S, _END_S = 480.0, 90.0


def run(name: str, *words: str) -> dict[str, Any]:
    """The last line of a small run; what it has started goes with it."""
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), *QUICK[name].split(), *words]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            said, _ = child.communicate(timeout=_LONGEST_S)
        except BaseException:
            child.send_signal(signal.SIGINT)  # it ends its servers
            child.wait(_END_S)
            raise
    assert child.returncode == 0, said[-2_000:]
    report: dict[str, Any] = json.loads(said.splitlines()[-1], parse_constant=pytest.fail)
    if "skipped" in report:
        pytest.skip(report["skipped"])
    return report


def test_streams() -> None:
    if not BASELINES.is_dir():
        pytest.skip(f"no reference loops in {BASELINES}")
    assert "streams" not in ALONE
    found = dict(ratios(run("streams", "--baselines", str(BASELINES))))
    assert found and min(found.values()) > 0


def test_stream_latency() -> None:
    found = run("stream_latency")
    assert found["peak_per_s"] > 0
    before = found["pre_storage"]
    assert min(before[name] for name in ("intake_p95_ms", "ready_p95_ms", "queued_p95_ms")) > 0
    assert 0 < before["applied_of_produced"] < 2
    assert found["visible"]["count"] > 0 and found["visible"]["p95_ms"] > 0
    assert found["burst"]["p95_ratio"] > 0 and found["burst"]["memory_ratio"] > 0
