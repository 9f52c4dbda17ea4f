"""Rows by a hash: a table of open addressing, built once and asked for many.

lookup_table(hashes)            None where two rows have one hash
rows_of(table, hashes, asked)   the row of each hash that is asked for, -1 where none has it
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.kernels.compiled import compiled
from workloads.kernels.csr import Ints, frozen

Hashes = NDArray[np.uint64]
Table = NDArray[np.int64]

_FREE = -1
_LEAST_BITS = 4


def lookup_table(hashes: Hashes) -> Table | None:
    """Rows at the places of their hashes, at most half of the places taken: int64[power of two].

    hashes: uint64[R], well mixed in their high bits, else it is slow. None where two are equal.
    """
    bits = max(_LEAST_BITS, (2 * len(hashes) - 1).bit_length())
    table = np.full(1 << bits, _FREE, np.int64)
    return table if _fill(frozen(hashes), np.uint64(64 - bits), table) else None


def rows_of(table: Table, hashes: Hashes, asked: Hashes) -> Ints:
    """Rows of `hashes`, which `table` was built from: int64[A], -1 for a hash that none has. asked: uint64[A]."""
    found = np.empty(len(asked), np.int64)
    shift = np.uint64(64 - (len(table).bit_length() - 1))
    _find(frozen(table), frozen(hashes), frozen(asked), shift, found)
    return found


@compiled
def _fill(hashes: Any, shift: Any, table: Any) -> bool:
    last = len(table) - 1
    for row in range(len(hashes)):
        place = np.int64(hashes[row] >> shift)
        while table[place] >= 0:
            if hashes[table[place]] == hashes[row]:
                return False
            place = (place + 1) & last
        table[place] = row
    return True


@compiled
def _find(table: Any, hashes: Any, asked: Any, shift: Any, found: Any) -> None:
    last = len(table) - 1
    for k in range(len(asked)):
        place = np.int64(asked[k] >> shift)
        while table[place] >= 0 and hashes[table[place]] != asked[k]:
            place = (place + 1) & last
        found[k] = table[place]
