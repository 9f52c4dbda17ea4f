"""The Ray shell of a shard writer: one actor a shard, one thread in it that turns the loop.

Nothing that matters lives here: an actor that starts again asks control store and shard where to go on.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from actors import away, external_shards
from actors.backlog import Backlog
from actors.priority import stand_alone
from actors.shard_start import Readiness, Start, start_writer
from actors.shard_writer import ShardWriter
from actors.stack import Stack
from cluster.config import Settings
from cluster.errors import Fenced, IntelGraphError, Retryable, Unavailable
from cluster.stores.open_shard import is_neo4j
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.writer")
_REPORT_S = 0.5
_PAUSE_FIRST_S, _PAUSE_LONGEST_S = 0.1, 5.0


@dataclass
class WriterStatus:
    """What a writer tells of itself."""

    shard: str
    state: str = "starting"
    reason: str = ""
    ready: bool = False
    epoch: int = 0
    lease: int = 0
    records: int = 0
    lag_records: int = 0
    lag_seconds: float = 0.0


def writer_lease(shard_id: str) -> str:
    """The name of the lease that a shard's writer works under."""
    return f"writer/{shard_id}"


class ShardWriterLoop:
    """Turns a shard's writer, and begins anew after every error that may pass.

    Args:
        stack: opened in this process.
        shard_id: which shard.
    """

    def __init__(self, stack: Stack, shard_id: str) -> None:
        self._stack, self._shard_id = stack, shard_id
        self._holder = shard_id  # a writer that is started again takes over at once: the shard refuses the one before
        self._stopping = threading.Event()
        self.status = WriterStatus(shard_id)
        self._counted = (0, 0, 0)
        metrics.FENCED.labels(shard_id)  # from zero, so that a first refusal is seen as an increase

    def run(self) -> None:
        """Until `stop`. Errors that cannot pass are shown in `status` and looked at again every few seconds."""
        pause_s = _PAUSE_FIRST_S
        while not self._stopping.is_set():
            try:
                self._turn()
                pause_s = _PAUSE_FIRST_S
            except Fenced as error:
                metrics.FENCED.labels(self._shard_id).inc()
                self._fail("waiting", error)
            except Retryable as error:
                if self.status.state == "running":  # it did work since the last error: wait briefly again
                    pause_s = _PAUSE_FIRST_S
                self._fail("waiting", error)
            except IntelGraphError as error:
                self._fail("stopped", error)
                pause_s = _PAUSE_LONGEST_S
            except Exception as error:  # a thread that dies writes nothing ever after, and says nothing: begin anew
                LOG.error("writer_failed", error, shard=self._shard_id)
                self._fail("stopped", error)
                pause_s = _PAUSE_LONGEST_S
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_LONGEST_S)

    def _fail(self, state: str, error: Exception) -> None:
        self.status.state, self.status.reason, self.status.ready = state, str(error), False
        metrics.SHARD_UP.labels(self._shard_id).set(0)
        LOG.warning("writer_begins_anew", shard=self._shard_id, state=state, reason=str(error))

    def stop(self) -> None:
        """End after the present turn."""
        self._stopping.set()

    def _turn(self) -> None:
        control, settings = self._stack.control, self._stack.settings
        lease_name = writer_lease(self._shard_id)
        token = control.leases.acquire(lease_name, self._holder, settings.shards.lease_s, time.time())
        registered = control.shards.get(self._shard_id)
        log, shard = self._stack.open_log(), self._stack.open_shard(self._shard_id)
        metrics.LOG_GENERATION.set(log.identity.generation)
        current = self._stack.current_map()
        if log.identity.partitions != current.partitions:
            raise Unavailable("the event log gets another number of partitions: `intelgraph up` does that", 1.0)
        start = Start(self._shard_id, registered.epoch, token, current, shard, log, self._stack.open_lake)
        try:
            if is_neo4j(registered.uri):  # by now its database may be another's, or empty
                external_shards.claim(self._stack, self._shard_id, registered.uri, log.identity.name)
            away.meet(control.audit, self._shard_id, shard, start.partitions, time.time())
            limits = settings.log
            writer = start_writer(
                start, limits.read_entries, limits.read_bytes, limits.block_ms, limits.interval_ms / 1e3
            )
            self._counted = (0, 0, 0)
            self.status.epoch, self.status.lease = registered.epoch, token
            try:
                self._loop(start, writer, lease_name, token)
            finally:
                self._count(writer)
        finally:
            shard.close()
            log.close()

    def _loop(self, start: Start, writer: ShardWriter, lease_name: str, token: int) -> None:
        control, readiness = self._stack.control, Readiness(start)
        shared = {p for p in start.partitions if len(start.map.shards_of_partition(p)) > 1}
        backlog = Backlog(start.log, writer, shared)
        self.status.state, self.status.reason = "running", ""
        due = 0.0
        while not self._stopping.is_set():
            if writer.step():
                metrics.STAGE_SECONDS.labels("queued").observe(max(0.0, time.time() - writer.oldest_pending_ms / 1000))
            for stage, seconds in writer.waited:
                metrics.STAGE_SECONDS.labels(stage).observe(seconds)
            writer.waited.clear()
            if not readiness.ready:
                self.status.ready = readiness.look(writer)
                metrics.SHARD_UP.labels(self._shard_id).set(1 if self.status.ready else 0)
            if time.monotonic() < due:
                continue
            due = time.monotonic() + _REPORT_S
            control.leases.renew(lease_name, token, self._stack.settings.shards.lease_s, time.time())
            if control.shards.get(self._shard_id).epoch != start.epoch:
                raise Fenced(f"shard {self._shard_id} has another epoch by now: its buckets or its server changed")
            self._report(writer, backlog)
        writer.flush()

    def _report(self, writer: ShardWriter, backlog: Backlog) -> None:
        lag = backlog.records()
        self.status.records, self.status.lag_records = writer.counters.records, sum(lag.values())
        now_ms = time.time() * 1000
        waiting = writer.oldest_pending_ms
        self.status.lag_seconds = max(0.0, (now_ms - waiting) / 1000) if waiting and self.status.lag_records else 0.0
        self._count(writer)
        for partition, records in lag.items():
            metrics.LAG_RECORDS.labels(self._shard_id, str(partition)).set(records)
        metrics.LAG_SECONDS.labels(self._shard_id, "all").set(self.status.lag_seconds)
        self._stack.control.shards.report_lag(
            self._shard_id, self.status.lag_records, self.status.lag_seconds, time.time()
        )

    def _count(self, writer: ShardWriter) -> None:
        """What the writer has done since the last time; also when it ends, however that is."""
        c = writer.counters
        counted = (c.applied, c.duplicate, c.stale)
        for metric, new, old in zip(
            (metrics.APPLIED, metrics.DUPLICATE, metrics.STALE), counted, self._counted, strict=True
        ):
            metric.labels(self._shard_id, "all").inc(new - old)
        self._counted = counted


class ShardWriterActor:
    """`ray.remote` is put around it by the supervisor. Every method is safe to call twice."""

    def __init__(self, settings: dict[str, Any], shard_id: str) -> None:
        stand_alone()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # batches have no cycles, sessions of Neo4j's driver do: 25 ms, now and then
        stack = Stack(Settings.model_validate(settings))
        stack.log_as(f"shard-writer:{shard_id}", shard=shard_id)
        self._loop = ShardWriterLoop(stack, shard_id)
        self._thread = threading.Thread(target=self._loop.run, name=f"writer-{shard_id}", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """How it is doing, and on which of Ray's nodes; `ended`: it was told to."""
        import ray  # the node imports this module before it has made the environment that Ray reads at its import

        node, ended = ray.get_runtime_context().get_node_id(), not self._thread.is_alive()
        return {**asdict(self._loop.status), "pid": os.getpid(), "node": node, "ended": ended}

    def metrics(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        return metrics.exposition()

    def stop(self) -> None:
        """Finish the batch on its way, then end."""
        self._loop.stop()
        self._thread.join(timeout=30)
