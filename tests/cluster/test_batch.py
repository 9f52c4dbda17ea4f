"""Entries of the log and records, there and back."""

from __future__ import annotations

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
