"""asOf and stale, by a clock that is passed in."""

from __future__ import annotations

import pytest

from cluster.errors import Corrupt
from overlays.freshness import freshness, marked, rfc3339, seconds_of


def test_stale_is_older_than_its_limit() -> None:
    then = seconds_of("2026-01-02T00:00:00.000Z")
    assert freshness("2026-01-02T00:00:00Z", then + 86_400, 24.0).stale is False
    late = freshness("2026-01-02T01:00:00+01:00", then + 86_401, 24.0)
    assert (late.stale, late.age_s) == (True, 86_401)
    assert freshness("2026-01-02T00:00:00Z", then - 3600, 24.0).age_s == 0.0
    assert rfc3339(then) == "2026-01-02T00:00:00Z"


def test_values_are_marked() -> None:
    values, then = {"score": 0.5, "asOf": "2026-01-02T00:00:00Z"}, seconds_of("2026-01-02T00:00:00Z")
    assert marked(values, then + 86_400, 24.0) == {**values, "stale": False}
    assert marked(values, then + 86_401, 24.0) == {**values, "stale": True}
    assert marked({"score": 0.5}, then, 24.0) == {"score": 0.5, "stale": True}


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-02T00:00:00"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(Corrupt, match="asOf"):
        freshness(text, 0.0, 24.0)
