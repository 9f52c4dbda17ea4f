"""Which readings go together, and which have to be written one after the other."""

from __future__ import annotations

from operator import add
from typing import Any

import pytest

from actors.gulp import Gulp, joined
from cluster.model import Kind
from cluster.stores.graph import CursorMove, Fence
from tests.strategies import make

RECORD = make("t", "c", Kind.ENTITY, "person", "p", "s", 1)
LEFT, RIGHT = Fence(1, 1, (0, 2)), Fence(1, 1, (1, 3))


def gulp(*moves: CursorMove, rows: list[tuple[Fence, Any]] | None = None, **more: Any) -> Gulp:
    return Gulp(list(moves), set(), rows or [], more.pop("several", []), bytes=10, **more)


def test_cursors_go_on_and_lanes_keep_their_order() -> None:
    first = gulp(CursorMove(0, 5, 7, 20), CursorMove(2, 1, 2, 3), rows=[(LEFT, ["a"])], oldest_ms=4)
    second = gulp(CursorMove(1, 0, 1, 2), CursorMove(0, 7, 8, 5), rows=[(LEFT, ["b"]), (RIGHT, ["c"])], oldest_ms=9)
    both = joined(first, second, 100, add)
    assert both is not None
    assert both.moves == [CursorMove(0, 5, 8, 25), CursorMove(2, 1, 2, 3), CursorMove(1, 0, 1, 2)]
    assert both.rows == [(LEFT, ["a", "b"]), (RIGHT, ["c"])]
    assert (both.oldest_ms, both.bytes, both.whole) == (4, 20, False)
    swapped = joined(second, first, 100, add)
    assert swapped is not None
    assert swapped.oldest_ms == 4, "another partition's may be older"
    assert (first.moves[0].end, first.rows) == (7, [(LEFT, ["a"])]), "what was given is as it was"


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (gulp(), gulp(), True),
        (gulp(), gulp(whole=True), True),
        (gulp(whole=True), gulp(), False),
        (gulp(), gulp(several=[RECORD]), False),
        (gulp(), gulp(system=[RECORD]), False),
    ],
)
def test_what_is_done_before_or_after_the_rows_is_not_overtaken(first: Gulp, second: Gulp, together: bool) -> None:
    both = joined(first, second, 100, add)
    assert (both is not None) is together
    assert both is None or both.whole is second.whole


def test_as_much_as_one_turn_takes_is_whole() -> None:
    both = [joined(gulp(), gulp(), most, add) for most in (19, 20)]
    assert [one.whole for one in both if one] == [True, False]
