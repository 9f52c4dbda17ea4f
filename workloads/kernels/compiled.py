"""How every kernel is compiled: no interpreter lock, no reordering of sums, machine code kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for the types of the first call. Without `fastmath`: each sum has one order on every machine.

    The machine code is cached beside the source, or in the user's cache folder; where neither can be written to
    (a read-only image without a home) it is compiled anew in each process, which takes seconds but works.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba: no place for the cache
        return njit(nogil=True)(function)
