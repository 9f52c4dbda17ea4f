"""One refresh of an overlay, from a snapshot to values in the shards: exactly once in effect, wherever it stops.

    settle    runs that a crash left: decided ones are written back, others end as failed
    start     the next run number, from the control store
    compute   on the cluster, files into a folder aside
    gate      converged, and not unlike the last top K; else the run ends as `gated` and the old values stay
    commit    the folder gets its name: the plan is decided
    append    values, then a floor for every partition; the run is `published`

Two refreshes at once are harmless: the later one ends the other, which stops before it appends, and if it had begun
already, the later run's versions and floor stand above its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.config import Settings
from cluster.errors import Conflict, Corrupt, Rejected, Retryable
from cluster.model import Record
from cluster.stores.control_runs import Run, Runs, RunState
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import Append
from cluster.telemetry.logs import Log
from overlays.decision import decide
from overlays.definition import Overlay
from overlays.mapping import map_scores
from overlays.results import Result, Results, top_rows
from overlays.write_back import Bounds, RunStamp, floor_entries, plan, value_entries
from workloads.overlay.backends import Backend
from workloads.overlay.input import OverlayInput
from workloads.overlay.stages import Stages

LOG = Log(__name__)
APPEND_ENTRIES = 64
"""Entries of one append call: bounds its memory."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a refresh needs from outside.

    Args:
        append: of the event log; returns once the entries are durable.
        partitions: of the log's generation.
        folder: where results lie.
        now: seconds since 1970.
        sleep: waits, seconds.
    """

    runs: Runs
    append: Callable[[Sequence[Append]], object]
    partitions: int
    folder: Path
    settings: Settings
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    failpoint: Failpoint = no_failpoint

    @property
    def bounds(self) -> Bounds:
        """Of a write-back."""
        ingest = self.settings.ingest
        overlays, records = self.settings.overlays, self.settings.records
        return Bounds(overlays.write_back_records, records.record_bytes, ingest.batch_records, ingest.batch_bytes)

    def results(self, tenant: str, overlay: str) -> Results:
        """The results of a tenant's overlay."""
        return Results(self.folder, tenant, overlay, self.failpoint)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh came to. settled: earlier runs that it finished or ended. stages: seconds."""

    run: Run
    result: Result
    settled: tuple[int, ...]
    stages: dict[str, float] = field(default_factory=dict)


def refresh(
    overlay: Overlay, source: OverlayInput, backend: Backend, around: Surroundings, override: str = ""
) -> Refreshed:
    """Run an overlay on a tenant's graph and write its top K back. Blocks; each call is a run of its own.

    override: an operator's reason for letting a ranking pass that is unlike the last one; it is kept with the run.

    Raises:
        Conflict: another refresh of this overlay took over.
        Retryable: the cluster, the log or the disk does not answer; what was decided is finished by the next refresh.
        Rejected, Corrupt: the input or settings are wrong; the run ends as failed.
    """
    settled = settle(source.tenant, overlay, around)
    run = around.runs.start(source.tenant, overlay.name, source.snapshot, around.now())
    stages = Stages()
    try:
        around.failpoint("start")
        result, records = _computed(overlay, source, backend, around, run, override, stages)
    except Exception as error:
        _still_running(run, around, error)
        around.runs.finish(source.tenant, overlay.name, run.run, "failed", around.now())
        raise
    around.failpoint("decided")
    if not result.gate["passed"]:
        run = around.runs.finish(source.tenant, overlay.name, run.run, "gated", around.now(), result.gate)
        LOG.warning("overlay_gated", tenant=source.tenant, overlay=overlay.name, run=run.run, why=result.gate["reason"])
        return Refreshed(run, result, settled, stages.seconds)
    _still_running(run, around)
    with stages.measure("append"):
        write_back(overlay, result, records, around)
    run = around.runs.finish(source.tenant, overlay.name, run.run, "published", around.now(), result.gate)
    around.results(source.tenant, overlay.name).prune(around.settings.overlays.keep_results, run.run)
    return Refreshed(run, result, settled, stages.seconds)


def settle(tenant: str, overlay: Overlay, around: Surroundings) -> tuple[int, ...]:
    """Finish or end what earlier refreshes left; returns their run numbers. Safe to call twice.

    A run whose folder is there has decided: its values are appended again (nothing changes where they were) and it is
    published. A run without one has appended nothing.
    """
    left = [run for run in around.runs.list(tenant, overlay.name) if run.state == "running"]
    results = around.results(tenant, overlay.name)
    for run in sorted(left, key=lambda run: run.run):
        result = results.read(run.run)
        if result is None:
            around.runs.finish(tenant, overlay.name, run.run, "failed", around.now())
            # It may have decided just before that: then it may append, and all of it has to be there.
            result = results.read(run.run)
            if result is not None:
                _finish(overlay, result, around)
        else:
            state = _finish(overlay, result, around)
            around.runs.finish(tenant, overlay.name, run.run, state, around.now(), result.gate)
        LOG.warning("overlay_run_settled", tenant=tenant, overlay=overlay.name, run=run.run, decided=result is not None)
    return tuple(run.run for run in left)


def write_back(overlay: Overlay, result: Result, records: Sequence[Record], around: Surroundings) -> None:
    """Append a run's values, then its floors. Safe to call twice. Failpoints: append, floor, publish."""
    stamp = _stamp(overlay, result)
    waiting: list[Append] = []
    for entry in value_entries(records, around.partitions, around.bounds):
        waiting.append(entry)
        if len(waiting) == APPEND_ENTRIES:
            _append(waiting, around)
            waiting = []
    _append(waiting, around)
    around.failpoint("floor")
    _append(floor_entries(stamp, around.partitions), around)
    around.failpoint("publish")


def _finish(overlay: Overlay, result: Result, around: Surroundings) -> RunState:
    """Write back what a run had decided; returns how it ended. A damaged plan's values are cleared, not half left."""
    try:
        records = around.results(result.tenant, overlay.name).read_plan(result)
    except Corrupt as error:
        return _cleared(overlay, result, around, error)
    if records is None:
        return "gated"
    try:
        write_back(overlay, result, records, around)
    except Rejected as error:
        return _cleared(overlay, result, around, error)
    return "published"


def _cleared(overlay: Overlay, result: Result, around: Surroundings, error: Exception) -> RunState:
    """Ends a run that can never be finished: a floor above it hides whatever part of it was appended."""
    LOG.error("overlay_plan_lost", error, tenant=result.tenant, overlay=overlay.name, run=result.run)
    _append(floor_entries(replace(_stamp(overlay, result), run=result.run + 1), around.partitions), around)
    return "failed"


def _append(entries: Sequence[Append], around: Surroundings) -> None:
    if not entries:
        return
    around.failpoint("append")
    deadline_s = around.settings.overlays.append_deadline_s
    waited_s = 0.0
    while True:
        try:
            around.append(entries)
        except Retryable as error:
            pause_s = error.retry_after_s * random.uniform(0.5, 1.5)
            if waited_s + pause_s > deadline_s:
                raise
            around.sleep(pause_s)
            waited_s += pause_s
        else:
            return


def _still_running(run: Run, around: Surroundings, error: Exception | None = None) -> None:
    """Raises Conflict if another refresh has ended this run; `error` is then what came of that."""
    found = next((r for r in around.runs.list(run.tenant, run.overlay) if r.run == run.run), None)
    if found is None or found.state != "running":
        raise Conflict(
            f"overlay {run.overlay}: another refresh took over from run {run.run}; look at its result", 1.0
        ) from error


def _computed(
    overlay: Overlay,
    source: OverlayInput,
    backend: Backend,
    around: Surroundings,
    run: Run,
    override: str,
    stages: Stages,
) -> tuple[Result, list[Record]]:
    settings = around.settings.overlays
    results = around.results(source.tenant, overlay.name)
    folder = results.begin(run.run)
    computed = overlay.compute(source, backend, settings, folder.aside)
    stages.seconds.update(computed.stages)
    with stages.measure("mapping"):
        found = map_scores(overlay, source, computed, settings.top_k)
    gate = decide(computed.converged, around.runs.latest(run.tenant, run.overlay), found.top_keys, settings, override)
    stamp = RunStamp(run.tenant, overlay.source, run.run, source.snapshot, source.as_of)
    records = plan(stamp, found.ranked, found.best, found.cases, found.keys, found.props, around.bounds)
    around.failpoint("computed")

    def result(plan_sha256: str) -> Result:
        top, written = top_rows(found.top_keys, found.top_props), len(records) if gate.passed else 0
        return Result(
            run.tenant, run.overlay, run.run, source.snapshot, source.as_of, computed.files, top, found.summary,
            dict(computed.detail), gate.as_json(), plan_sha256, written, stages.seconds,
        )  # fmt: skip

    with stages.measure("commit"):
        return results.commit(folder, result, records if gate.passed else None), records


def _stamp(overlay: Overlay, result: Result) -> RunStamp:
    return RunStamp(result.tenant, overlay.source, result.run, result.snapshot, result.as_of)
