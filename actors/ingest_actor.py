"""The Ray shell of the ingest worker: an actor that loads files, and the call that follows a load to its end.

    load_file(request, report)  →  actor `ingest-worker:N`  →  FileLoads.ingest  →  control store: ranges, counts

A worker that dies is started again by Ray; `load_file` hands it the same request, and the load goes on from the last
committed position of each range. What was appended twice is a duplicate.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from actors.connectors import ColumnMapping
from actors.loads import FileLoads, LoadFile, LoadProgress, LoadResult
from actors.priority import step_aside
from actors.retrying import Backoff
from actors.stack import Stack
from actors.supervisor import NAMESPACE, Wanted, plain
from cluster.config import Settings
from cluster.errors import Rejected, Retryable, Unavailable
from cluster.stores.log import EventLog
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.ingest")
_LOOK_S, _GIVE_UP_S, _AGAIN_S, _ABANDON_S = 0.2, 120.0, 0.5, 2.0
_ABANDONED = 1_000


@dataclass(frozen=True)
class LoadRequest:
    """A file for a worker on the same machine.

    Args:
        path: absolute.
        mapping: `ColumnMapping` as plain values, or None.
    """

    path: str
    tenant: str
    source: str
    format: str | None = None
    mapping: dict[str, Any] | None = None
    case: str | None = None

    def file(self) -> LoadFile:
        """The request as the loads take it. Raises Rejected for a mapping that will not do."""
        mapping = None if self.mapping is None else ColumnMapping.model_validate(self.mapping)
        return LoadFile(Path(self.path), self.tenant, self.source, self.format, mapping, self.case)


@dataclass(frozen=True)
class Loaded:
    """A finished load: its id, records acknowledged and dead by this call, and where in the log they end."""

    load: str
    source: str
    epoch: int
    acked: int
    dead: int
    reached: dict[int, int]
    stage_seconds: dict[str, float]


def loaded(result: LoadResult) -> Loaded:
    """What a caller in another process needs of a result."""
    load = result.load
    return Loaded(
        load.id, load.source, load.epoch, result.counts.acked, result.counts.dead, result.reached, result.times.seconds
    )


class IngestWorkerActor:
    """`ray.remote` is put around it by the supervisor. `load` may be called again; it goes on where it was."""

    def __init__(self, settings: dict[str, Any], number: int) -> None:
        step_aside()
        gc.freeze()
        gc.set_threshold(200_000, 20, 50)  # batches of tuples without cycles: the collector only walks them
        self._stack = Stack(Settings.model_validate(settings))
        self._stack.log_as(f"ingest-worker:{number}")
        self._one_at_a_time = threading.Lock()
        self._progress: LoadProgress | None = None
        self._call, self._abandoned = "", set[str]()

    def status(self) -> dict[str, Any]:
        """How it is doing."""
        busy = self._one_at_a_time.locked()
        return {"state": "loading" if busy else "idle", "reason": "", "pid": os.getpid(), "alive": True}

    def metrics(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        return metrics.exposition()

    def progress(self) -> LoadProgress | None:
        """How far the load at work is; None where there is none."""
        return self._progress

    def load(self, request: LoadRequest, call: str = "") -> Loaded:
        """Load a file to its end; one at a time, others wait. Raises as `FileLoads.ingest`.

        Args:
            call: names this call, for `abandon`.
        """
        with self._one_at_a_time:
            self._call = call
            try:
                with closing(self._opened_log()) as log:
                    loads = FileLoads(self._stack.control, log, self._stack.settings)
                    return loaded(loads.ingest(request.file(), self._note))
            finally:
                self._progress = None
                self._abandoned.discard(call)

    def abandon(self, call: str) -> None:
        """Nobody waits for this call any more: it ends after the batch at hand. Safe to call twice."""
        if len(self._abandoned) < _ABANDONED:
            self._abandoned.add(call)

    def _opened_log(self) -> EventLog:
        return Backoff.of(self._stack.settings.ingest).call(self._stack.open_log, self._log_is_away)

    def _log_is_away(self, error: Retryable) -> None:
        self._note(LoadProgress(0, 0, 0, 0, 0.0, str(error)))

    def _note(self, progress: LoadProgress) -> None:
        self._progress = progress
        if self._call in self._abandoned:
            raise Rejected("whoever asked for this load has gone: the same again goes on with it")

    def stop(self) -> None:
        """Nothing to finish: a load that is cut off goes on when it is asked for again."""


def wanted_workers(settings: Settings) -> list[Wanted]:
    """The ingest workers that have to run."""
    config = plain(settings)
    return [Wanted(f"ingest-worker:{n}", IngestWorkerActor, (config, n)) for n in range(settings.ingest.workers)]


def load_file(
    request: LoadRequest, report: Callable[[LoadProgress], None] = lambda progress: None, worker: int = 0
) -> Loaded:
    """Have a worker load a file, follow it, and hand it over again if the worker dies.

    Needs a connected Ray. Blocks until every record is durable in the log or a dead letter. When it is interrupted, the
    worker leaves off after the batch at hand.

    Raises:
        Rejected: the file will not do. Retryable: a store stayed down. Unavailable: no worker answers.
    """
    call, furthest, since = uuid.uuid4().hex, -1, 0.0
    # `since`: when a worker first died without getting further than those before it; 0 where it did.

    def heard(progress: LoadProgress | None) -> None:
        nonlocal furthest, since
        if progress is not None:
            if progress.bytes_done > furthest:
                furthest, since = progress.bytes_done, 0.0
            report(progress)

    while True:
        try:
            actor = ray.get_actor(f"ingest-worker:{worker}", namespace=NAMESPACE)
            return _followed(actor, request, heard, call)
        except (ray.exceptions.RayActorError, ValueError) as error:
            since = since or time.monotonic()
            if time.monotonic() > since + _GIVE_UP_S:
                raise Unavailable(f"ingest worker {worker} does not come back; see `intelgraph status`") from error
            LOG.warning("ingest_worker_gone", reason=type(error).__name__, **asdict(request))
            time.sleep(_AGAIN_S)


def _followed(actor: Any, request: LoadRequest, heard: Callable[[LoadProgress | None], None], call: str) -> Loaded:
    answer = actor.load.remote(request, call)
    try:
        return _answered(actor, answer, heard)
    except KeyboardInterrupt:
        ray.wait([actor.abandon.remote(call)], timeout=_ABANDON_S)
        raise


def _answered(actor: Any, answer: Any, heard: Callable[[LoadProgress | None], None]) -> Loaded:
    while True:
        done, _ = ray.wait([answer], timeout=_LOOK_S)
        if done:
            try:
                result: Loaded = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # an error of ours, as the worker raised it
            return result
        # A call for progress alone may be lost; the load's own tells whether its worker died.
        with suppress(ray.exceptions.RayActorError):
            heard(ray.get(actor.progress.remote()))
