"""Counters that stores keep, in Prometheus's text format: exact whichever process did the work, and wherever it ended.

A command that takes a load back, replays letters or writes an overlay's values back ends before anybody could ask it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

HELP = {
    "acked": "Records durable in the log, whichever way they came.",
    "dlq_in": "Records put among the dead letters; each once, however often its source is read.",
    "dlq_out": "How replays of dead letters ended.",
}


def log_counters(records: Mapping[int, int]) -> bytes:
    """What the log counts. records: ever appended, by partition."""
    return _text(_family("acked", "partition", {str(partition): count for partition, count in records.items()}))


def letter_counters(came: Mapping[str, int], left: Mapping[str, int]) -> bytes:
    """What the dead letters count. came: by error class. left: by outcome."""
    return _text(_family("dlq_in", "error_class", came), _family("dlq_out", "outcome", left))


def _family(name: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"intelgraph_{name}", HELP[name], labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _text(*families: Metric) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
