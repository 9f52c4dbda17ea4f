"""The gate before a write-back: what the control store keeps of a decision, and what the next one compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import OverlaySettings
from cluster.stores.control_runs import Run
from workloads.kernels.stability import StabilityThresholds, stability_gate
from workloads.overlay.input import Key


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a run may be written back, and why. top: its ranking, which the next run is compared with."""

    passed: bool
    reason: str
    overridden: str
    measures: dict[str, float]
    top: tuple[Key, ...]

    def as_json(self) -> dict[str, Any]:
        """What the control store keeps with the run."""
        return {
            "passed": self.passed,
            "reason": self.reason,
            "overridden": self.overridden,
            "measures": self.measures,
            "top": [list(key) for key in self.top],
        }


def decide(
    converged: bool, previous: Run | None, top: Sequence[Key], settings: OverlaySettings, override: str = ""
) -> Decision:
    """Compare a run's top K with that of the last published run. Pure.

    override: an operator's reason to let an unlike ranking pass; nothing lets a run pass that did not converge.
    """
    thresholds = StabilityThresholds(settings.gate_overlap, settings.gate_rbo, settings.gate_kendall)
    found = stability_gate(converged, _top_of(previous), list(top), thresholds)
    measures: dict[str, float] = {}
    if found.stability is not None:
        stable = found.stability
        measures = {"depth": stable.depth, "overlap": stable.overlap, "rbo": stable.rbo, "kendall": stable.kendall}
    overridden = override if converged and not found.passed else ""
    return Decision(found.passed or bool(overridden), found.reason, overridden, measures, tuple(top))


def _top_of(previous: Run | None) -> list[Key]:
    if previous is None or previous.gate is None:
        return []
    return [(type_, id_) for type_, id_ in previous.gate.get("top", [])]
