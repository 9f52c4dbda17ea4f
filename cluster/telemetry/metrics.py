"""Every metric that processes count, declared once. Each counts in its own registry; `merge` puts them together. What
the stores count themselves is in `stored`.

Labels are bounded: stage, shard, stream, partition, outcome and store are sets that operators bound. Tenants, cases and
sources are not labels: they are in the logs and in `intelgraph lag`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
"""This process's metrics and nothing else."""

_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_QUERY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(f"intelgraph_{name}", help_text, labels, registry=REGISTRY)


def _gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(f"intelgraph_{name}", help_text, labels, registry=REGISTRY)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"intelgraph_{name}", help_text, labels, registry=REGISTRY, buckets=buckets)


APPLIED = _counter("applied", "Records that changed a register.", "shard", "partition")
DUPLICATE = _counter("duplicate", "Records whose version a register had already.", "shard", "partition")
STALE = _counter("stale", "Records older than what a register had.", "shard", "partition")
FENCED = _counter("fenced", "Batches that a shard or lease refused, nothing written.", "shard")
EPOCH_MISMATCH = _counter("epoch_mismatch", "Calls that named another epoch than the shard has.", "shard")
MISROUTE_REFUSED = _counter("misroute_refused", "Calls for a bucket that the shard does not own.", "shard")
DEADLOCKS = _counter("deadlocks", "Transactions that a database ended because they waited in a circle; expected: 0.")
READ_RECORDS = _counter("stage_records", "Records that a stage has taken in.", "stage")

LAG_RECORDS = _gauge("lag_records", "Records in the log that a consumer has not applied.", "consumer", "partition")
LAG_SECONDS = _gauge(
    "lag_seconds", "Age of the oldest record that a consumer has not applied.", "consumer", "partition"
)
STREAM_LAG_RECORDS = _gauge(
    "stream_lag_records", "Records of a topic that its stream has not read.", "stream", "partition"
)
STREAM_LAG_SECONDS = _gauge(
    "stream_lag_seconds", "Age of the last record read, while there are others behind it.", "stream", "partition"
)
STREAM_STOPPED = _gauge(
    "stream_stopped", "1 while a partition of a topic cannot be read on, else 0.", "stream", "partition"
)
STREAM_PARTIAL = _counter(
    "stream_partial_updates", "Captured updates without the row before: no REPLICA IDENTITY FULL.", "stream"
)
STREAM_WORKERS = _gauge("stream_workers", "Stream workers that answer.")
STREAM_WORKERS_WANTED = _gauge("stream_workers_wanted", "Stream workers that there should be.")
STREAM_WORKERS_DRAINING = _gauge("stream_workers_draining", "Stream workers that bring to an end what they hold.")
STREAM_WORKER_CPU = _gauge("stream_worker_cpu", "Share of a core that a stream worker takes.")
SCHEMA_DRIFT = _counter(
    "schema_drift", "Schemas that a stream had not met before: `additive`, or `breaking`, which stops it.", "stream",
    "outcome",
)  # fmt: skip
SNAPSHOT_AGE_SECONDS = _gauge("snapshot_age_seconds", "Seconds since the newest snapshot's asOf.", "store")
LOG_BYTES = _gauge("log_bytes", "Bytes held by the log.", "store")
LOG_GENERATION = _gauge("log_generation", "Generation of the log; counts up when a lost tail was made good.")
CANARY_SECONDS = _gauge(
    "canary_seconds", "From the append of a shard's last canary until it was read back, or since then.", "shard"
)
SHARD_UP = _gauge("shard_up", "1 while the shard serves, else 0.", "shard")

STAGE_SECONDS = _histogram("stage_seconds", "Time of one batch in a stage.", _STAGE_BUCKETS_S, "stage")
STORE_QUERY_SECONDS = _histogram(
    "store_query_seconds", "Time of one store call.", _QUERY_BUCKETS_S, "store", "operation"
)


@contextmanager
def stage(name: str, records: int) -> Iterator[None]:
    """Times one batch in a stage, also when it fails."""
    began = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - began)
        READ_RECORDS.labels(name).inc(records)


def exposition() -> bytes:
    """This process's metrics in Prometheus's text format: what an actor returns and `/metrics` merges. Read only."""
    return generate_latest(REGISTRY)
