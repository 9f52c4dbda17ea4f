"""The Ray shell of the lake appender: one actor, one thread that turns the loop under a lease, and trims the log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.lake_appender import LakeAppender
from actors.priority import step_aside
from actors.stack import Stack
from cluster.config import Settings
from cluster.errors import Fenced, IntelGraphError, Retryable
from cluster.stores.lake_positions import Positions
from cluster.stores.log import EventLog
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

LOG = Log("intelgraph.lake")
CONSUMER = "lake"
INTENDED = "lake/intended"
"""The consumer that has what the lake's next commit goes up to: never behind the lake, so it holds nothing of the log,
and a lake that does not answer at a start is known to have no more."""
_LEASE, _LEASE_S, _TRIM_S = "lake-appender", 30.0, 5.0


class LakeAppenderLoop:
    """Turns the appender, and begins anew after every error that may pass."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopping = threading.Event()
        self._flush = threading.Event()
        self._trim_due = 0.0
        self.state, self.reason, self.records = "starting", "", 0

    def run(self) -> None:
        """Until `stop`."""
        pause_s = 0.1
        while not self._stopping.is_set():
            try:
                self._turn()
            except (Retryable, Fenced) as error:
                self.state, self.reason = "waiting", str(error)
                LOG.warning("lake_begins_anew", reason=str(error))
            except IntelGraphError as error:
                self.state, self.reason, pause_s = "stopped", str(error), 5.0
                LOG.error("lake_stopped", error)
            except Exception as error:  # a thread that dies appends nothing ever after, and says nothing: begin anew
                self.state, self.reason, pause_s = "stopped", repr(error), 5.0
                LOG.error("lake_failed", error)
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, 5.0)

    def stop(self) -> None:
        """Commit what is buffered, then end."""
        self._stopping.set()
        self._flush.set()

    def flush(self) -> None:
        """Commit at the next turn, however little there is."""
        self._flush.set()

    def _turn(self) -> None:
        control, settings = self._stack.control, self._stack.settings
        token = control.leases.acquire(_LEASE, CONSUMER, _LEASE_S, time.time())
        log, lake = self._stack.open_log(), self._stack.open_lake()
        control.positions.bind_log(log.identity)
        control.positions.register(CONSUMER, range(log.all_partitions), time.time())

        def holds_lease() -> bool:
            control.leases.renew(_LEASE, token, _LEASE_S, time.time())
            return True

        def report(positions: Positions) -> None:
            numbers = {p: at.number for p, at in positions.partitions.items()}
            control.positions.report_durable(CONSUMER, numbers, time.time())
            self.records = positions.records

        def intend(numbers: Mapping[int, int]) -> None:
            control.positions.report_durable(INTENDED, numbers, time.time())

        appender = LakeAppender(log, lake, settings.lake, settings.log.read_entries, holds_lease, report, intend)
        try:
            self._loop(log, lake, appender)
        finally:
            lake.close()
            log.close()

    def _loop(self, log: EventLog, lake: Lake, appender: LakeAppender) -> None:
        self.state, self.reason = "running", ""
        while not self._stopping.is_set():
            step = appender.step(block_ms=200)
            if self._flush.is_set():
                self._flush.clear()
                appender.flush()
            if step.records_committed:
                metrics.LOG_BYTES.labels("redis").set(log.bytes_used())
            self._trim(log)
            if not step.more:
                self._flush.wait(self._stack.settings.lake.interval_ms / 1e3)
        appender.flush()

    def _trim(self, log: EventLog) -> None:
        if time.monotonic() < self._trim_due:
            return
        self._trim_due = time.monotonic() + _TRIM_S
        for partition, number in self._stack.control.positions.least().items():
            if number:
                log.trim(partition, number + 1)


class LakeAppenderActor:
    """`ray.remote` is put around it by the supervisor. Every method is safe to call twice."""

    def __init__(self, settings: dict[str, Any]) -> None:
        step_aside()
        stack = Stack(Settings.model_validate(settings))
        stack.log_as("lake-appender")
        self._loop = LakeAppenderLoop(stack)
        self._thread = threading.Thread(target=self._loop.run, name="lake-appender", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """How it is doing; `ended`: it was told to."""
        loop = self._loop
        ended = not self._thread.is_alive()
        return {"state": loop.state, "reason": loop.reason, "records": loop.records, "pid": os.getpid(), "ended": ended}

    def metrics(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        return metrics.exposition()

    def flush(self) -> None:
        """Ask for a commit now; does not wait."""
        self._loop.flush()

    def stop(self) -> None:
        """Commit what is buffered, then end."""
        self._loop.stop()
        self._thread.join(timeout=60)
