"""The overlays that come with the product, by name."""

from __future__ import annotations

from cluster.errors import NotFound
from overlays.definition import Overlay
from overlays.louvain import LOUVAIN
from overlays.pagerank import PAGERANK

BUILT_IN = {overlay.name: overlay for overlay in (PAGERANK, LOUVAIN)}


def find(name: str) -> Overlay:
    """The built-in overlay of that name.

    Raises:
        NotFound: there is none; the message lists those that there are.
    """
    if name not in BUILT_IN:
        raise NotFound(f"there is no overlay {name!r}; there are {', '.join(sorted(BUILT_IN))}")
    return BUILT_IN[name]
