"""Reading what overlays have found: the tenant's best from the result, a case's best from the plan; never a shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cluster.config import OverlaySettings
from cluster.errors import Corrupt, NotFound
from cluster.stores.control_runs import Runs
from overlays.freshness import freshness
from overlays.results import Result, Results


class OverlayValues:
    """The published values of overlays, each with `asOf` and whether that is too long ago. Safe for several threads."""

    def __init__(self, runs: Runs, folder: Path, settings: OverlaySettings, now: Callable[[], float]) -> None:
        self._runs, self._folder, self._settings, self._now = runs, folder, settings, now

    def top(self, tenant: str, name: str, case: str | None, limit: int) -> dict[str, Any]:
        """The best entities, of the tenant or of one case, best first; at most `overlays.top_k` are kept. Blocks.

        Returns:
            overlay, run, snapshot, asOf, ageSeconds, stale, detail, summary (of the tenant), and items with rank, type,
            id and the overlay's properties.

        Raises:
            NotFound: there is no such overlay, or no run of it was published for the tenant.
            Corrupt: the run's files are missing or damaged.
        """
        result = self.latest(tenant, name)
        fresh = freshness(result.as_of, self._now(), self._settings.stale_after_h)
        items = list(result.top[:limit]) if case is None else self._of_case(result, case, limit)
        head = {"overlay": name, "run": result.run, "snapshot": result.snapshot}
        age = {"asOf": fresh.as_of, "ageSeconds": round(fresh.age_s, 3), "stale": fresh.stale}
        whole = {} if case is not None else {"detail": result.detail, "summary": list(result.summary[:limit])}
        return {**head, **age, **whole, "items": items}

    def latest(self, tenant: str, name: str) -> Result:
        """The result of the last published run. Raises as `top` does."""
        run = self._runs.latest(tenant, name)
        if run is None:
            from overlays.registry import BUILT_IN  # their kernels bring a compiler: a second of CPU

            known = f"run it: `intelgraph overlay run {name}`" if name in BUILT_IN else f"there are {sorted(BUILT_IN)}"
            raise NotFound(f"overlay {name!r} has no published run: {known}")
        result = Results(self._folder, tenant, name).read(run.run)
        if result is None:
            raise Corrupt(f"overlay {name}: the files of run {run.run} are missing; run the overlay again")
        return result

    def _of_case(self, result: Result, case: str, limit: int) -> list[dict[str, Any]]:
        found = Results(self._folder, result.tenant, result.overlay).read_case(result, case, limit)
        shared = ("asOf", "snapshot", "run")
        items = []
        for record in found:
            props = {k: v for k, v in msgspec.json.decode(record.props).items() if k not in shared}
            items.append({"rank": props["rank_in_case"], "type": record.type, "id": record.id, **props})
        return items
