"""Rows in the order of vertex numbers, by counting: linear in rows and vertices, where a sort compares.

order_of(dst, n)          the rows by dst; those of one dst as they came
order_by(src, dst, n)     the rows by (src, dst); parallel ones as they came
starts_of(dst, n)         where the rows of each dst begin, once they are in that order
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.kernels.compiled import compiled
from workloads.kernels.csr import Ints, frozen

_AS_THEY_ARE: Ints = np.empty(0, np.int64)


def order_of(keys: Ints, count: int, before: Ints | None = None) -> Ints:
    """The order that sorts rows by their key, stable: int64[E].

    keys: int64[E] within 0..count-1, else ValueError. before: the order in which equal keys stay; that of the rows
    where absent.
    """
    if len(keys) == 0:
        return np.empty(0, np.int64)
    cursor = starts_of(keys, count)
    order = np.empty(len(keys), np.int64)
    _place(frozen(keys), frozen(_AS_THEY_ARE if before is None else before), cursor, order)
    return order


def starts_of(keys: Ints, count: int) -> Ints:
    """How many rows have a lesser key than each of 0..count: int64[count + 1]. ValueError as of `order_of`."""
    starts = np.zeros(count + 1, np.int64)
    if not _count(frozen(keys), starts):
        raise ValueError(f"a key is outside 0..{count - 1}")
    return np.cumsum(starts, out=starts)


def order_by(major: Ints, minor: Ints, count: int) -> Ints:
    """The order that sorts rows by (major, minor), stable: int64[E]. Both within 0..count-1, else ValueError."""
    return order_of(major, count, order_of(minor, count))


@compiled
def _count(keys: Any, starts: Any) -> bool:
    for k in range(len(keys)):
        key = keys[k]
        if key < 0 or key >= len(starts) - 1:
            return False
        starts[key + 1] += 1
    return True


@compiled
def _place(keys: Any, before: Any, cursor: Any, order: Any) -> None:
    given = len(before) > 0
    for k in range(len(keys)):
        row = before[k] if given else k
        key = keys[row]
        order[cursor[key]] = row
        cursor[key] += 1
