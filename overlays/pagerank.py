"""PageRank: who is central. Personalised: who is close to some entities, by the same measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.config import OverlaySettings
from cluster.errors import Rejected
from overlays.definition import Computed, Overlay, Props
from workloads.kernels.csr import Floats, Ints
from workloads.overlay.backends import Backend
from workloads.overlay.input import Key, OverlayInput
from workloads.overlay.pagerank_job import PageRankRun


def compute(source: OverlayInput, backend: Backend, settings: OverlaySettings, folder: Path) -> Computed:
    """Rank every entity of the tenant."""
    return _computed(backend.pagerank(source.graph, folder, settings))


def annotate(computed: Computed, source: OverlayInput, vertices: Ints) -> Sequence[Props]:
    """The score; all scores of a tenant add up to 1."""
    return [{"score": score} for score in computed.score[vertices].tolist()]


def personalised(name: str, seeds: Sequence[Key]) -> Overlay:
    """An overlay of its own that ranks by closeness to some entities, all of one weight.

    Args:
        seeds: (type, id) of entities; those that the snapshot lacks are left out.

    Raises:
        Rejected: no seeds; and by `compute`, when the snapshot has none of them.
    """
    if not seeds:
        raise Rejected("personalised PageRank: name at least one entity")

    def ranked(source: OverlayInput, backend: Backend, settings: OverlaySettings, folder: Path) -> Computed:
        weights = seed_weights(source.find(seeds), source.graph.vertices)
        return _computed(backend.pagerank(source.graph, folder, settings, weights))

    return Overlay(name, "closeness (personalised PageRank)", ranked, annotate)


def seed_weights(found: Ints, vertices: int) -> Floats:
    """1 for each vertex that was found, else 0: float64[vertices]. Raises Rejected if none was."""
    there = found[found >= 0]
    if len(there) == 0:
        raise Rejected("personalised PageRank: the snapshot has none of the named entities; check type and id")
    weights = np.zeros(vertices)
    weights[there] = 1.0
    return weights


def _computed(run: PageRankRun) -> Computed:
    detail: Props = {"iterations": run.iterations, "residual": run.residual, "parts": run.parts}
    return Computed(run.ranks, run.converged, run.files, run.stages, detail)


PAGERANK = Overlay("pagerank", "centrality (PageRank)", compute, annotate)
