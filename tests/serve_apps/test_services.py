from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.stack import Stack
from cluster.errors import Rejected
from serve_apps.services import Letters


def test_a_place_among_dead_letters_that_no_page_gave_is_refused() -> None:
    def listed(tenant: str, after: int, limit: int) -> list[Any]:
        assert after < 2**63, "more than the store can be asked for"
        return []

    stack = SimpleNamespace(control=SimpleNamespace(dead_letters=SimpleNamespace(list=listed)))
    letters = Letters(cast(Stack, stack))
    assert letters.page("t", 10, None) == letters.page("t", 10, "17") == ([], None)
    for after in ("x", "", "-1", "1.0", "1_0", str(2**70), "٣"):
        with pytest.raises(Rejected, match="after"):
            letters.page("t", 10, after)
