"""Kernels compile where nothing can be written, and need no threading layer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import caching

from workloads.kernels.compiled import compiled

ROOT = Path(__file__).parents[3]


def test_compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled(lambda a: a + 1)(1) == 2


def test_no_threading_layer_is_started() -> None:
    """The `workqueue` layer crashes when two threads enter it, and OpenMP's after a fork: neither may be in use."""
    program = """
import numba, numpy as np
from concurrent.futures import ThreadPoolExecutor
from workloads.kernels.csr import build_csc
from workloads.kernels.pagerank import pagerank
ends = np.arange(20_000) % 9_000
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: pagerank(build_csc(ends, ends[::-1].copy(), 9_000, threads=2), threads=2), range(8)))
try:
    print(numba.threading_layer())
except ValueError:
    print("none")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.stdout.strip() == "none"
