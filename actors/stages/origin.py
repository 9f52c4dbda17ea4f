"""Where a batch comes from, and so what its records may say."""

from __future__ import annotations

from dataclasses import dataclass

PUSHED_EPOCH = 0
"""Epoch of a record that is pushed with a position and without an epoch: older than every file of its source."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a batch beside its bytes: from the verified token, or from the source's registration.

    Args:
        tenants: whose records these may be; a record that names none belongs to the only one.
        sources: under which names; a record that names none is of `source`.
        source: None: the only one of `sources`, if there is only one.
        epoch: of records that bring no epoch: that of the file or topic range they were read from.
        ours: the platform itself writes: names under `overlay/` and `system/` are allowed, and no others.
    """

    tenants: frozenset[str]
    sources: frozenset[str]
    source: str | None = None
    epoch: int = PUSHED_EPOCH
    ours: bool = False

    @property
    def tenant(self) -> str | None:
        """The tenant of records that name none."""
        return next(iter(self.tenants)) if len(self.tenants) == 1 else None

    @property
    def default_source(self) -> str | None:
        """The source of records that name none."""
        if self.source is None and len(self.sources) == 1:
            return next(iter(self.sources))
        return self.source
