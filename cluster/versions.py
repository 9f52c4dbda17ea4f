"""Versions: (source epoch, position), as one text that sorts as the pair does.

Each integer is written as one letter for the number of its hexadecimal digits (`a` = 1 … `p` = 16), then the
digits; a version is the epoch followed by the integers of the position. The letters make longer numbers
greater, so comparing texts byte by byte compares (epoch, position…) in order, and a position that is the
beginning of another is the lesser. Ordinary versions take 8 to 12 characters; see docs/adr/0002.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cluster.errors import BadRecord, Corrupt

MAX_INTEGER = 2**64 - 1
MAX_POSITION_PARTS = 8
LETTERS = "abcdefghijklmnop"
"""The letter before an integer of n hexadecimal digits is the n-th."""


def _integer(value: int) -> str:
    digits = f"{value:x}"
    return LETTERS[len(digits) - 1] + digits


def encode(epoch: int, position: Sequence[int]) -> str:
    """The sortable text of (epoch, position).

    Args:
        epoch: of the source, 0 to 2^64-1.
        position: 1 to 8 integers, each 0 to 2^64-1, compared in order.

    Raises:
        BadRecord: an integer is out of range, or there are none or too many.
    """
    if len(position) == 1 and 0 <= (value := position[0]) <= MAX_INTEGER and 0 <= epoch <= MAX_INTEGER:
        digits = f"{value:x}"  # nearly all positions are one integer
        return floor_of(epoch) + LETTERS[len(digits) - 1] + digits
    if not 1 <= len(position) <= MAX_POSITION_PARTS:
        raise BadRecord("schema", f"position: give 1 to {MAX_POSITION_PARTS} integers, not {len(position)}")
    for value in (epoch, *position):
        if not 0 <= value <= MAX_INTEGER:
            raise BadRecord("schema", f"epoch and position: integers from 0 to 2^64-1, not {value}")
    return _integer(epoch) + "".join(map(_integer, position))


@lru_cache(maxsize=1024)
def floor_of(epoch: int) -> str:
    """The least version text of an epoch: every version of it is greater or equal, every earlier epoch's less."""
    return _integer(epoch)


def epoch_of(version: str) -> int:
    """The epoch of a version text or a stamp."""
    width = LETTERS.index(version[0]) + 1
    return int(version[1 : 1 + width], 16)


def epoch_text(version: str) -> str:
    """What a version text or a stamp begins with: all of an epoch begin alike, and none of another."""
    return version[: LETTERS.index(version[0]) + 2]


def decode(version: str) -> tuple[int, tuple[int, ...]]:
    """(epoch, position) of a version text.

    Raises:
        Corrupt: the text is no version.
    """
    parts: list[int] = []
    at = 0
    while at < len(version):
        width = LETTERS.find(version[at]) + 1
        digits = version[at + 1 : at + 1 + width]
        if width == 0 or len(digits) != width:
            raise Corrupt(f"not a version: {version!r}")
        try:
            parts.append(int(digits, 16))
        except ValueError as error:
            raise Corrupt(f"not a version: {version!r}") from error
        at += 1 + width
    if not parts:
        raise Corrupt("not a version: it is empty")
    return parts[0], tuple(parts[1:])
