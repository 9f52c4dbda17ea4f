"""The overlays that come with the product, by name."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import NotFound, Rejected
from overlays.definition import Overlay
from overlays.louvain import LOUVAIN
from overlays.pagerank import PAGERANK, personalised

BUILT_IN = {overlay.name: overlay for overlay in (PAGERANK, LOUVAIN)}


def find(name: str) -> Overlay:
    """The built-in overlay of that name.

    Raises:
        NotFound: there is none; the message lists those that there are.
    """
    if name not in BUILT_IN:
        raise NotFound(f"there is no overlay {name!r}; there are {', '.join(sorted(BUILT_IN))}")
    return BUILT_IN[name]


def near(name: str, seeds: Sequence[str]) -> Overlay:
    """Personalised PageRank under a name of its own.

    Args:
        seeds: entities as `type:id`.

    Raises:
        Rejected: the name is a built-in overlay's, or a seed is no `type:id`.
    """
    if name in BUILT_IN:
        raise Rejected(f"{name} is an overlay without seeds; give closeness to some entities a name of its own")
    keys = [(type_, id_) for type_, _, id_ in (seed.partition(":") for seed in seeds)]
    for seed, (type_, id_) in zip(seeds, keys, strict=True):
        if not type_ or not id_:
            raise Rejected(f"seed {seed!r}: write type:id, such as person:ann@example.org")
    return personalised(name, keys)
