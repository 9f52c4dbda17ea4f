"""A soak of a minute, and what it takes for flat memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Install
from tests.faults.harness import Installation
from tests.faults.memory import family, resident_bytes, slope_per_minute
from tests.faults.soak import soak

pytestmark = [pytest.mark.services]


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("stack", "seed"), [("embedded", 1), pytest.param("production", 1, marks=pytest.mark.production)]
)
def test_two_minutes_at_most_of_the_peak_with_a_fault_each_fifteen_seconds(install: Install, seed: int) -> None:
    with install(f"so{seed}") as system:
        system.start(lake=True)
        found = soak(system, 2.0, 0.7, seed, every_s=15.0 if system.stack_name == "embedded" else 30.0)
        assert found.wrong == []
        assert len(found.faults) >= 3


@pytest.mark.slow
def test_a_short_one_finds_nothing_wrong(server_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one fault. How soon lag comes back, and whether memory is flat, is for those of minutes on a machine that does
    nothing else."""
    with Installation(server_root / "so0") as system:
        system.start(lake=True)
        monkeypatch.setattr("tests.faults.soak.WARM_S", 0.5)
        found = soak(system, 0.4, 0.5, 1, every_s=20.0, peak_s=0.5, tell=lambda line: None)
        assert len(found.faults) >= 1
        assert [wrong for wrong in found.wrong if "memory" not in wrong and "lag was" not in wrong] == []
        assert found.sent > 0
        assert found.memory_first_mib > 50


def test_memory_of_a_process_and_its_children() -> None:
    text = "import sys; held = bytearray(b'x') * (64 << 20); print('ready', flush=True); sys.stdin.read()"
    before = resident_bytes(family([os.getpid()]))
    child = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.pid in family([os.getpid()])
    assert resident_bytes(family([os.getpid()])) - before > 60 << 20
    child.communicate()
    assert child.pid not in family([os.getpid()])
    assert resident_bytes([child.pid]) == 0


@pytest.mark.parametrize(
    ("series", "slope"), [([], 0.0), ([(0.0, 5)], 0.0), ([(0.0, 5), (60.0, 5)], 0.0), ([(0.0, 0), (30.0, 10)], 20.0)]
)
def test_growth_a_minute(series: list[tuple[float, int]], slope: float) -> None:
    assert slope_per_minute(series) == pytest.approx(slope)
