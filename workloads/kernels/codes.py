"""Columns of few values as codes: which values occur, their codes in another order, and keys made of several codes.

used_codes(codes, n)        which of 0..n-1 occur
recoded(codes, place)       place[code] of each row
values_of(codes, values, n) the value that the rows of each code have
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.kernels.compiled import compiled
from workloads.kernels.csr import Ints, frozen

Codes = NDArray[np.uint32]
NO_VALUE = -1


def used_codes(codes: NDArray[Any], count: int) -> Ints:
    """Codes that occur, in order: int64. codes: unsigned[R] within 0..count-1, else ValueError."""
    seen = np.zeros(count, np.bool_)
    if not _mark(_narrow(codes), seen):
        raise ValueError(f"a code is outside 0..{count - 1}")
    return np.flatnonzero(seen)


def recoded(codes: NDArray[Any], place: Codes) -> Codes:
    """`place` of each row's code: uint32[R]. codes: unsigned[R], each a row of `place`, else ValueError."""
    found = np.empty(len(codes), np.uint32)
    if not _translate(_narrow(codes), frozen(place), found):
        raise ValueError(f"a code is outside 0..{len(place) - 1}")
    return found


def values_of(codes: Ints, values: NDArray[Any], count: int) -> Ints:
    """The value of each code's rows, the last one's where they differ, NO_VALUE of a code without rows: int64[count].

    codes: int64[R] within 0..count-1, else ValueError. values: integers[R].
    """
    found = np.full(count, NO_VALUE, np.int64)
    if not _note(frozen(codes), frozen(values), found):
        raise ValueError(f"a code is outside 0..{count - 1}")
    return found


def _narrow(codes: NDArray[Any]) -> Codes:
    """As the one type that the kernels are compiled for."""
    return frozen(codes.astype(np.uint32, copy=False))


@compiled
def _mark(codes: Any, seen: Any) -> bool:
    for k in range(len(codes)):
        if codes[k] >= len(seen):
            return False
        seen[codes[k]] = True
    return True


@compiled
def _translate(codes: Any, place: Any, found: Any) -> bool:
    for k in range(len(codes)):
        if codes[k] >= len(place):
            return False
        found[k] = place[codes[k]]
    return True


@compiled
def _note(codes: Any, values: Any, found: Any) -> bool:
    for k in range(len(codes)):
        if codes[k] < 0 or codes[k] >= len(found):
            return False
        found[codes[k]] = values[k]
    return True
