"""What is counted, and how the processes' expositions become one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.errors import Corrupt
from cluster.telemetry import exposition, merge_expositions, metrics, stage
from cluster.telemetry.stored import letter_counters, log_counters


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def actor_text(applied: int, lag: float = 0.0) -> bytes:
    registry = CollectorRegistry()
    Counter("applied", "Applied.", ["shard"], registry=registry).labels('sh"ard\n').inc(applied)
    Gauge("lag", "Lag.", registry=registry).set(lag)
    Histogram("seconds", "Seconds.", registry=registry, buckets=(0.1, 1.0)).observe(0.5)
    return generate_latest(registry)


def test_every_metric_of_the_product_is_declared_and_none_has_an_unbounded_label():
    stored = log_counters({0: 1}) + letter_counters({"decode": 1}, {"replayed": 1})
    declared = {family.name: family for family in metrics.REGISTRY.collect()}
    declared |= {family.name: family for family in text_string_to_metric_families(stored.decode())}
    wanted = (
        "acked applied duplicate stale fenced dlq_in dlq_out misroute_refused epoch_mismatch lag_records lag_seconds "
        "snapshot_age_seconds stage_seconds store_query_seconds"
    )
    assert {f"intelgraph_{name}" for name in wanted.split()} <= set(declared)
    labels = {
        label for collector in metrics.REGISTRY._collector_to_names for label in getattr(collector, "_labelnames", ())
    }
    labels |= {name for (_, found) in samples(stored) for name, _ in found}
    readers = {"shard", "partition", "consumer", "stream"}
    assert labels <= readers | {"stage", "store", "operation", "error_class", "outcome"}


def test_a_stage_is_timed_and_counted_also_when_it_fails():
    name = "test_stage"
    with stage(name, 10):
        pass
    with pytest.raises(ZeroDivisionError), stage(name, 5):
        _ = 1 / 0
    found = samples(exposition())
    label = frozenset({("stage", name)})
    assert found["intelgraph_stage_records_total", label] == 15
    assert found["intelgraph_stage_seconds_count", label] == 2


def test_samples_of_all_actors_are_there_with_their_names():
    merged = samples(merge_expositions({"writer-0": actor_text(3, 1.5), 'w"1': actor_text(4)}))
    label = ("shard", 'sh"ard\n')
    assert merged["applied_total", frozenset({("actor", "writer-0"), label})] == 3
    assert merged["applied_total", frozenset({("actor", 'w"1'), label})] == 4
    assert merged["lag", frozenset({("actor", "writer-0")})] == 1.5
    assert merged["seconds_bucket", frozenset({("actor", "writer-0"), ("le", "1.0")})] == 1
    assert len(merged) == len(samples(actor_text(0))) * 2


def test_a_family_is_declared_once_and_order_does_not_matter():
    parts = {"a": actor_text(1), "b": actor_text(2)}
    merged = merge_expositions(parts)
    assert merged == merge_expositions(dict(reversed(parts.items())))
    for line in (b"# TYPE applied_total counter\n", b"# TYPE lag gauge\n", b"# TYPE seconds histogram\n"):
        assert merged.count(line) == 1


def test_nothing_and_empty_texts():
    assert merge_expositions({}) == b""
    assert merge_expositions({"a": b""}) == b""


@pytest.mark.parametrize("text", [b"\xff", b"applied{shard=", b"applied one\n"])
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(Corrupt, match="writer-7"):
        merge_expositions({"writer-7": text})


def test_one_name_with_two_types_is_refused():
    registry = CollectorRegistry()
    Gauge("seconds", "Other.", registry=registry)
    with pytest.raises(Corrupt, match="seconds"):
        merge_expositions({"a": actor_text(1), "b": generate_latest(registry)})


def test_what_stores_count_is_an_exposition_like_others():
    texts = {"log": log_counters({0: 12, 10: 3}), "letters": letter_counters({"decode": 2}, {})}
    merged = samples(merge_expositions({**texts, "writer": actor_text(1)}))
    assert merged["intelgraph_acked_total", frozenset({("actor", "log"), ("partition", "10")})] == 3
    assert merged["intelgraph_dlq_in_total", frozenset({("actor", "letters"), ("error_class", "decode")})] == 2
    assert samples(log_counters({})) == {}


def test_processes_count_for_themselves():
    counting = "m.APPLIED.labels('s', '0').inc(7); print(m.exposition().decode())"
    script = f"from cluster.telemetry import metrics as m; {counting}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=".")
    merged = samples(merge_expositions({"child": done.stdout}))
    assert merged["intelgraph_applied_total", frozenset({("actor", "child"), ("shard", "s"), ("partition", "0")})] == 7
