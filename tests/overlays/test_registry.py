"""Overlays by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from cluster.config import Settings
from cluster.errors import NotFound, Rejected
from overlays.definition import Overlay
from overlays.pagerank import PAGERANK, annotate, compute
from overlays.registry import find, near
from workloads.kernels.csr import Ints
from workloads.overlay.backends import Backend
from workloads.overlay.input import Key, OverlayInput


def test_built_in() -> None:
    assert find("pagerank") is PAGERANK
    assert find("louvain").source == "overlay/louvain"
    with pytest.raises(NotFound, match="louvain, pagerank"):
        find("../pagerank")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "1a", "a" * 65, "a\n"])
def test_names_are_fit_for_sources_and_folders(name: str) -> None:
    with pytest.raises(Rejected, match="overlay name"):
        Overlay(name, "", compute, annotate)


def test_closeness_has_a_name_of_its_own_and_seeds() -> None:
    assert near("near-ann", ["person:ann@example.org", "licence:a:b"]).source == "overlay/near-ann"
    with pytest.raises(Rejected, match="a name of its own"):
        near("pagerank", ["person:ann"])
    for seed in ("ann", ":ann", "person:", ""):
        with pytest.raises(Rejected, match="write type:id"):
            near("near-ann", ["person:ann", seed])


def test_seeds_are_found_by_type_and_id(tmp_path: Path) -> None:
    given: list[Sequence[Key]] = []

    class Input:
        graph = SimpleNamespace(vertices=2)

        def find(self, keys: Sequence[Key]) -> Ints:
            given.append(keys)
            return np.array([-1, -1])

    overlay = near("near-ann", ["person:ann", "licence:a:b"])
    with pytest.raises(Rejected, match="none of the named entities"):
        overlay.compute(cast(OverlayInput, Input()), cast(Backend, None), Settings().overlays, tmp_path)
    assert given == [[("person", "ann"), ("licence", "a:b")]]
