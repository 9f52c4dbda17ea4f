"""What an overlay is: three plain functions and a name. Your own is one of these, in one file.

MINE = Overlay("degree", "degree", compute=compute, annotate=annotate)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.config import OverlaySettings
from cluster.errors import Rejected
from cluster.model import OVERLAY_PREFIX
from cluster.values import Value
from workloads.kernels.csr import Floats, Ints
from workloads.overlay.backends import Backend
from workloads.overlay.input import OverlayInput

Props = dict[str, Value]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
STAMPS = frozenset({"asOf", "snapshot", "run", "rank_in_case", "rank_in_tenant"})
"""Properties that every overlay value gets beside those of its overlay."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a run found out about vertices 0..n-1.

    score: float64[n], what the top K are taken by: the greatest first, ties the least (type, id). labels: int64[n],
    each vertex's group by its least vertex, for overlays that divide. converged: False keeps the run from being
    written back. files: Parquet files in the run's folder. stages: seconds. detail: what to show of the run.
    """

    score: Floats
    converged: bool
    files: tuple[str, ...]
    stages: Mapping[str, float]
    detail: Mapping[str, Value]
    labels: Ints | None = None
    counts: Mapping[str, Ints] = field(default_factory=dict)


Compute = Callable[[OverlayInput, Backend, OverlaySettings, Path], Computed]
"""(input, backend, settings, folder) → Computed; writes its files into the folder. Blocks; raises as backends do."""

Annotate = Callable[[Computed, OverlayInput, Ints], Sequence[Props]]
"""(computed, input, vertices) → properties of each of these vertices, in their order."""

Summarise = Callable[[Computed, OverlayInput, int], Sequence[Mapping[str, object]]]
"""(computed, input, k) → at most k rows about the whole, for people: JSON values."""


def nothing_more(computed: Computed, source: OverlayInput, k: int) -> Sequence[Mapping[str, object]]:
    """The `Summarise` of an overlay whose top K says all."""
    return ()


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay.

    Args:
        name: `[a-z][a-z0-9-]{0,63}`; its values come from the source `overlay/<name>`.
        title: for people.
    """

    name: str
    title: str
    compute: Compute
    annotate: Annotate
    summarise: Summarise = nothing_more

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Rejected(f"overlay name {self.name!r}: use a-z, 0-9 and -, beginning with a letter, up to 64")

    @property
    def source(self) -> str:
        """The source of its values."""
        return OVERLAY_PREFIX + self.name
