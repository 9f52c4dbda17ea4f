"""Louvain: who belongs together. A community is named by its least member, so that names last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.config import OverlaySettings
from overlays.definition import Computed, Overlay, Props
from workloads.kernels.csr import Ints
from workloads.kernels.topk import top_k
from workloads.overlay.backends import Backend
from workloads.overlay.input import Key, OverlayInput

MEMBERS_SHOWN = 5


def compute(source: OverlayInput, backend: Backend, settings: OverlaySettings, folder: Path) -> Computed:
    """Divide the tenant's entities; an entity's score is its relationships to others of its community."""
    run = backend.louvain(source.graph, folder, settings)
    sizes = np.bincount(run.labels, minlength=len(run.labels)).astype(np.int64)
    detail: Props = {"modularity": run.modularity, "communities": int((sizes > 0).sum())}
    counts = {"size": sizes, "inside": run.inside}
    return Computed(run.inside.astype(np.float64), True, run.files, run.stages, detail, run.labels, counts)


def annotate(computed: Computed, source: OverlayInput, vertices: Ints) -> Sequence[Props]:
    """The community's name and size, and how many relationships tie the entity to it."""
    labels = _labels(computed)[vertices]
    distinct, place = np.unique(labels, return_inverse=True)
    names = [community_name(key) for key in source.keys(distinct)]
    sizes, inside = computed.counts["size"][labels].tolist(), computed.counts["inside"][vertices].tolist()
    return [
        {"community": names[at], "community_size": size, "community_links": links}
        for at, size, links in zip(place.tolist(), sizes, inside, strict=True)
    ]


def summarise(computed: Computed, source: OverlayInput, k: int) -> Sequence[Mapping[str, object]]:
    """The k largest communities, each with the members that have the most relationships inside it."""
    largest = top_k(computed.counts["size"].astype(np.float64), k)
    largest = largest[computed.counts["size"][largest] > 0]
    order = np.lexsort((-computed.score, _labels(computed)))
    starts = np.searchsorted(_labels(computed)[order], largest)
    rows = []
    for label, start, key in zip(largest.tolist(), starts.tolist(), source.keys(largest), strict=True):
        size = int(computed.counts["size"][label])
        members = source.keys(order[start : start + min(size, MEMBERS_SHOWN)])
        shown = [{"type": type_, "id": id_} for type_, id_ in members]
        rows.append({"community": community_name(key), "size": size, "members": shown})
    return rows


def community_name(least: Key) -> str:
    """`type:id` of the least member; a type holds no colon, so no two entities make one name."""
    return f"{least[0]}:{least[1]}"


def _labels(computed: Computed) -> Ints:
    if computed.labels is None:
        raise ValueError("an overlay that divides gives labels")
    return computed.labels


LOUVAIN = Overlay("louvain", "communities (Louvain)", compute, annotate, summarise)
