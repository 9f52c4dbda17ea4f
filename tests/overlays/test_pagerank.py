"""Personalised PageRank as an overlay of its own."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import Rejected
from overlays.pagerank import personalised, seed_weights


def test_seeds_that_are_not_there_are_left_out() -> None:
    assert seed_weights(np.array([2, -1, 0, 2]), 4).tolist() == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(Rejected, match="none of the named entities"):
        seed_weights(np.array([-1, -1]), 4)
    with pytest.raises(Rejected, match="at least one"):
        personalised("near", [])
