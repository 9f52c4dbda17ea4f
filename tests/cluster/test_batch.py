"""Entries of the log and records, there and back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster import batch
from cluster.errors import Corrupt
from cluster.model import Kind
from tests.strategies import make


def test_an_entry_without_bytes_holds_nothing() -> None:
    one = make("t", "c", Kind.ENTITY, "person", "p", "s", 1)
    assert batch.decode(b"") == []
    assert batch.decode_arrow(b"").schema == batch.SCHEMA
    frame = batch.decode_frame([b"", batch.encode([one]), b""])
    assert batch.records_of(frame) == [one]
    assert batch.decode_frame([b""]).schema == batch.frame_of([one]).schema


@pytest.mark.parametrize("data", [b"x", batch.encode([])[:20]])
def test_damage_is_not_taken_for_nothing(data: bytes) -> None:
    with pytest.raises(Corrupt):
        batch.decode(data)


_NATIVE_THREADS = """
import os
from cluster import batch
from cluster.model import Kind
from tests.strategies import make

records = [make("t", "c", Kind.ENTITY, "person", f"p{i}", "s", i + 1) for i in range(1000)]
before = set(os.listdir("/proc/self/task"))
assert batch.decode(batch.encode(records)) == records
print(len(set(os.listdir("/proc/self/task")) - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_no_thread_is_handed_a_column() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NATIVE_THREADS], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "0"
