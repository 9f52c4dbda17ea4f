"""Digests of slots: of what rows hold, whatever pieces they come in."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.snapshot.digest import SlotDigests, slots_of

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3), st.integers(0, 9)), min_size=1, max_size=20)
NAMES = ["type", "id", "vertex"]
KINDS = [pa.string(), pa.large_string(), pa.int64()]


def table(rows: list[tuple[str, str, int]], *, coded: bool = False) -> pa.Table:
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), KINDS, strict=True)]
    return pa.table([columns[0].dictionary_encode() if coded else columns[0], *columns[1:]], NAMES)


def counted(rows: int, cuts: list[int]) -> list[tuple[int, int]]:
    ends = sorted({cut % (rows + 1) for cut in cuts} | {rows})
    return [(slot, end - begin) for slot, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))]


@given(ROWS, st.lists(st.integers(0, 20), max_size=3), st.lists(st.integers(0, 20), max_size=5))
def test_pieces_make_no_difference(rows: list[tuple[str, str, int]], slots: list[int], cuts: list[int]) -> None:
    rows_by_slot = counted(len(rows), slots)
    digests, at = SlotDigests(NAMES, rows_by_slot), 0
    for number, length in counted(len(rows), cuts):
        if length:
            digests.add(table(rows[at : at + length], coded=number % 2 == 0))
        at += length
    assert digests.slots() == slots_of(table(rows), rows_by_slot)


@given(ROWS, st.data())
def test_any_other_row_is_another_digest(rows: list[tuple[str, str, int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(ROWS.map(lambda drawn: drawn[0]).filter(lambda row: row != rows[at]))
    changed = [*rows[:at], other, *rows[at + 1 :]]
    whole = [(0, len(rows))]
    assert slots_of(table(rows), whole) != slots_of(table(changed), whole)


@pytest.mark.parametrize("counted", [1, 3])
def test_slots_have_as_many_rows_as_come(counted: int) -> None:
    with pytest.raises(ValueError, match="rows than the slots have"):
        slots_of(table([("a", "x", 1), ("a", "y", 2)]), [(0, counted)])
