"""Which rows of the lake a reading wants."""

from __future__ import annotations

from typing import NamedTuple

from cluster.stores.lake_positions import Positions


class Wanted(NamedTuple):
    """Which rows a reading wants; None: all.

    Args:
        after: rows of later entries only.
        partition: of one log partition, and with `first`..`last`, of these entry numbers.
        buckets: lowest and highest bucket, both included; floors and priorities are of every bucket.
        since_ms, until_ms: when the entry was appended to the log, ms since 1970, the latter not included; floors and
            priorities, and rows that do not know it, are of every time.
    """

    after: Positions | None = None
    partition: int | None = None
    first: int | None = None
    last: int | None = None
    buckets: tuple[int, int] | None = None
    tenant: str | None = None
    source: str | None = None
    least_kind: int | None = None
    most_kind: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
