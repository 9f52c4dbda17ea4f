"""What stands in a batch where a record has failed."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from cluster.errors import BadRecord

T = TypeVar("T")


class Bad(msgspec.Struct, frozen=True, gc=False):
    """Why a record is none: material for a dead letter, or for the answer that names it.

    Args:
        error_class: one of `cluster.errors.ERROR_CLASSES`.
        reason: which field, what is wrong with it, what would be right.
        type: of the record, where it could be read.
    """

    error_class: str
    reason: str
    type: str = ""


Slot: TypeAlias = T | Bad
"""A place in a batch."""


def bad_of(error: BadRecord, type: str = "") -> Bad:
    """The slot for an error that was raised for one record."""
    return Bad(error.error_class, error.reason, type)
