"""From scores of vertices to entities with names: what the gate compares, the plan writes and people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.errors import Rejected
from overlays.definition import Computed, Overlay, Props
from overlays.write_back import Ranked, tenant_ranks, top_by_case
from workloads.overlay.input import Key, OverlayInput


@dataclass(frozen=True, slots=True)
class Mapped:
    """The best of each case and of the tenant.

    ranked: rows by case, best first. best: vertex → rank in the tenant, best first. keys, props: by vertex, of all
    vertices in either. summary: rows about the whole, for people.
    """

    cases: Sequence[str]
    ranked: Ranked
    best: Mapping[int, int]
    keys: Mapping[int, Key]
    props: Mapping[int, Props]
    summary: tuple[dict[str, Any], ...]

    @property
    def top_keys(self) -> list[Key]:
        """The tenant's best, best first."""
        return [self.keys[vertex] for vertex in self.best]

    @property
    def top_props(self) -> list[Props]:
        """Their properties."""
        return [self.props[vertex] for vertex in self.best]


def map_scores(overlay: Overlay, source: OverlayInput, computed: Computed, k: int) -> Mapped:
    """Name the k best of each case and of the tenant. Blocks while the input reads names.

    Raises:
        Rejected: there is not one score an entity, or one is not a number.
    """
    if len(computed.score) != source.graph.vertices:
        raise Rejected(f"overlay {overlay.name}: {len(computed.score)} scores for {source.graph.vertices} entities")
    membership = source.membership()
    ranked, best = top_by_case(computed.score, membership, k), tenant_ranks(computed.score, k)
    vertices = np.union1d(ranked.vertex, np.fromiter(best, np.int64, len(best)))
    keys = dict(zip(vertices.tolist(), source.keys(vertices), strict=True))
    props = dict(zip(vertices.tolist(), overlay.annotate(computed, source, vertices), strict=True))
    summary = tuple(dict(row) for row in overlay.summarise(computed, source, k))
    return Mapped(membership.cases, ranked, best, keys, props, summary)
