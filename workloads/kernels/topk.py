"""The best K of a vector of values, in an order that never depends on chance.

top_k(ranks, 100)                    ties go to the lower vertex number
top_k(ranks, 100, keys=["a", "b"])   ties go to the lesser key: stable over snapshots, whose numbering changes
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.errors import Rejected
from workloads.kernels.csr import Floats, Ints


def top_k(values: Floats, k: int, keys: Sequence[str] | Sequence[int] | Ints | None = None) -> Ints:
    """Positions of the k greatest values, greatest first, ties by least key (or position): int64[min(k, n)].

    keys: as many as values, distinct and sortable; strings compare by code point. Linear in n, but for the ties
    at the edge, which are sorted. Raises Rejected for k < 0 or values that are not numbers (they have no order).
    """
    if k < 0:
        raise Rejected(f"k must be at least 0, not {k}")
    if keys is not None and len(keys) != len(values):
        raise ValueError(f"{len(values)} values need as many keys, not {len(keys)}")
    if np.isnan(values).any():
        raise Rejected("values that are not numbers cannot be ranked; the run that made them has failed")
    size = min(k, len(values))
    if size == 0:
        return np.empty(0, np.int64)
    least = np.partition(values, len(values) - size)[len(values) - size]
    candidates = np.flatnonzero(values >= least)
    if keys is None:
        order = np.lexsort((candidates, -values[candidates]))
        return candidates[order[:size]].astype(np.int64)
    ranked = sorted(candidates.tolist(), key=lambda at: (-float(values[at]), keys[at]))
    return np.asarray(ranked[:size], np.int64)
