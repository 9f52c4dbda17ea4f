from __future__ import annotations

import pytest

from actors.stages.times import utc_text
from cluster.errors import BadRecord


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59.120Z", "2026-01-31T23:59:59.120Z"),
        ("2026-01-31t23:59:59z", "2026-01-31T23:59:59Z"),
        ("2026-02-01T00:30:00+01:00", "2026-01-31T23:30:00Z"),
        ("2026-01-31 18:59:59.000000001-05:00", "2026-01-31T23:59:59.000000001Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("2016-12-31T18:59:60-05:00", "2016-12-31T23:59:59Z"),
        ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00Z"),
    ],
)
def test_times_become_utc_and_keep_their_fraction(text: str, utc: str) -> None:
    assert utc_text(text) == utc
    assert utc_text(utc) == utc


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-01-31", "2026-01-31T23:59:59", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z",
        "2026-01-31T23:60:00Z", "2026-01-31T12:00:60Z", "2026-01-31T23:59:59+24:00", "2026-01-31T23:59:59+01",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "20260131T235959Z",
        "2026-W05-6T00:00:00Z", "2026-01-31T23:59:59.Z", "2026-01-31T23:59:59.1234567890Z", " 2026-01-31T23:59:59Z",
        "2026-01-31T23:59:59Z\n", "２026-01-31T23:59:59Z",
    ],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadRecord, match="event_time"):
        utc_text(text)
