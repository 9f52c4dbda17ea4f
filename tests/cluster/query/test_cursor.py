from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from cluster.query.cursor import CURSOR_CHARS_MAX, Cursors
from cluster.query.ir import CasesQuery, NeighboursQuery, SearchQuery

CURSORS = Cursors(b"s" * 32)
QUERY = SearchQuery("t", "c", 10, text="x")


@given(st.lists(st.text(max_size=40) | st.integers(), max_size=3))
def test_what_was_sealed_is_opened(values: list[object]) -> None:
    assert CURSORS.open(QUERY, CURSORS.seal(QUERY, values)) == values


def test_page_size_and_place_may_change() -> None:
    sealed = CURSORS.seal(QUERY, ["a"])
    assert CURSORS.open(dataclasses.replace(QUERY, limit=3, after=("c", "T", "x")), sealed) == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(QUERY, tenant="u"),
        dataclasses.replace(QUERY, case=None),
        dataclasses.replace(QUERY, text="y"),
        dataclasses.replace(QUERY, types=("T",)),
        CasesQuery("t", 10),
        NeighboursQuery("t", "c", "T", "x", 1, 10),
    ],
)
def test_no_other_tenant_or_question_can_use_it(other: SearchQuery | CasesQuery | NeighboursQuery) -> None:
    with pytest.raises(Rejected):
        CURSORS.open(other, CURSORS.seal(QUERY, ["a"]))


@given(st.data())
def test_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    sealed = CURSORS.seal(QUERY, ["place", 7])
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + data.draw(st.sampled_from("AQgw09-_.= é")) + sealed[at + 1 :]
    if changed != sealed:
        with pytest.raises(Rejected):
            CURSORS.open(QUERY, changed)


@pytest.mark.parametrize("character", ["\U0001f600", "\x01", '"', "\uffff"])
def test_the_longest_place_fits_a_url(character: str) -> None:
    place = [character * 256, "T" * 64, character * 1024]
    sealed = CURSORS.seal(QUERY, place)
    assert len(sealed) <= CURSOR_CHARS_MAX
    assert CURSORS.open(QUERY, sealed) == place


@pytest.mark.parametrize("text", ["", ".", "a.b.c", "x" * 20_000, "é.é", "[].", "W10.AAAA"])
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        CURSORS.open(QUERY, text)


def test_another_secret_opens_nothing() -> None:
    with pytest.raises(Rejected):
        Cursors(b"r" * 32).open(QUERY, CURSORS.seal(QUERY, ["a"]))
