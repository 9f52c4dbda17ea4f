"""How old an overlay value is: `asOf` beside every value, and `stale` when that is too long ago. The clock comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.errors import Corrupt


@dataclass(frozen=True, slots=True)
class Freshness:
    """as_of: RFC 3339. age_s: seconds from then until now, never negative. stale: older than it may be."""

    as_of: str
    age_s: float
    stale: bool


def freshness(as_of: str, now: float, stale_after_h: float) -> Freshness:
    """How fresh values of that moment are.

    Args:
        now: seconds since 1970.

    Raises:
        Corrupt: `as_of` is no RFC 3339 time.
    """
    age_s = max(0.0, now - seconds_of(as_of))
    return Freshness(as_of, age_s, age_s > stale_after_h * 3600)


def marked(values: Mapping[str, Any], now: float, stale_after_h: float) -> dict[str, Any]:
    """One overlay's values of an entity with `stale` beside their `asOf`. Without a time it is stale."""
    try:
        stale = freshness(str(values.get("asOf", "")), now, stale_after_h).stale
    except Corrupt:
        stale = True
    return {**values, "stale": stale}


def seconds_of(as_of: str) -> float:
    """Seconds since 1970 of an RFC 3339 time with its offset. Raises Corrupt."""
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError as error:
        raise Corrupt(f"overlay value: asOf {as_of!r} is no RFC 3339 time; run the overlay again") from error
    if moment.tzinfo is None:
        raise Corrupt(f"overlay value: asOf {as_of!r} lacks its offset from UTC; run the overlay again")
    return moment.timestamp()


def rfc3339(seconds: float) -> str:
    """The RFC 3339 time of seconds since 1970, in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
