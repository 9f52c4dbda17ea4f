"""Overlays by name."""

from __future__ import annotations

import pytest

from cluster.errors import NotFound, Rejected
from overlays.definition import Overlay
from overlays.pagerank import PAGERANK, annotate, compute
from overlays.registry import find


def test_built_in() -> None:
    assert find("pagerank") is PAGERANK
    assert find("louvain").source == "overlay/louvain"
    with pytest.raises(NotFound, match="louvain, pagerank"):
        find("../pagerank")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "1a", "a" * 65, "a\n"])
def test_names_are_fit_for_sources_and_folders(name: str) -> None:
    with pytest.raises(Rejected, match="overlay name"):
        Overlay(name, "", compute, annotate)
