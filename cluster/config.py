"""Every setting and every limit, by name, in frozen models.

Loaded once at start: `load()` takes the defaults below, then the file that INTELGRAPH_CONFIG names, then
INTELGRAPH__SECTION__FIELD from the environment; later ones win and unknown keys are refused. The result is
passed on explicitly; nothing else reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import Rejected


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordLimits(Section):
    """What one record may be."""

    tenant_chars: int = 256
    case_chars: int = 256
    id_chars: int = 1024
    record_bytes: int = Field(default=1 << 20, description="one record as JSON; a larger one is a dead letter")
    properties: int = Field(default=256, description="properties of one record")
    property_bytes: int = Field(default=256 << 10, description="one value, as canonical JSON")
    list_items: int = 10_000
    relationship_types_per_tenant: int = 500
    property_names_per_tenant: int = 5_000


class IngestLimits(Section):
    """Bounds of the ingest path."""

    batch_records: int = 8_000
    batch_bytes: int = 4 << 20
    line_bytes: int = Field(default=4 << 20, description="longest line of a file that is kept for its dead letter")
    file_bytes: int = Field(default=512 << 20, description="largest file that must be read whole (STIX)")
    http_body_bytes: int = 8 << 20
    http_batch_records: int = 10_000
    idempotency_hours: int = 24
    workers: int = 1
    retry_first_s: float = Field(default=0.05, description="first wait after a store has failed; doubles each time")
    retry_most_s: float = Field(default=5.0, description="longest wait between two attempts")
    retry_deadline_s: float = Field(default=600.0, description="a source stops with the error after so long")
    push_deadline_s: float = Field(default=5.0, description="so long a push whose outcome is unknown is sent again")
    push_wait_s: float = Field(
        default=2.0, description="so long a push waits for another with its Idempotency-Key; then it is told to retry"
    )
    push_claim_s: float = Field(
        default=15.0, description="so long a push holds its Idempotency-Key; then a retry takes it over"
    )
    dead_letter_payload_bytes: int = 1 << 20
    dead_letter_attempts: int = Field(
        default=5, description="after so many failed replays a dead letter is quarantined"
    )


class LogSettings(Section):
    """The event log."""

    partitions: int = 8
    max_bytes: int = Field(default=2 << 30, description="over this, push gets 429 and sources are paused")
    entry_bytes: int = Field(default=8 << 20, description="largest entry of the log")
    read_entries: int = Field(default=64, description="entries of one partition in one reading")
    read_bytes: int = Field(default=256 << 10, description="bytes of one partition in one reading")
    block_ms: int = 500
    timeout_s: float = 10.0


class ShardSettings(Section):
    """Hot shards and their writers."""

    embedded: int = Field(default=2, description="FalkorDB processes that `up` starts on this machine")
    write_rows: int = Field(default=1_000, description="rows of one write query")
    timeout_s: float = 30.0
    read_timeout_s: float = 10.0
    checkpoint_s: float = 5.0
    lease_s: float = 10.0


class LakeSettings(Section):
    """The lake appender."""

    enabled: bool = Field(default=True, description="false: nothing is kept beyond the log (for benchmarks)")
    commit_s: float = 5.0
    commit_bytes: int = 64 << 20
    keep_metadata: int = 20
    compact_files: int = 200


class QuerySettings(Section):
    """Bounds of the query API."""

    host: str = "127.0.0.1"
    port: int = 8080
    page_default: int = 100
    page_max: int = 1_000
    hops_max: int = 3
    neighbours_max: int = Field(default=100_000, description="paths looked at by one neighbourhood query")
    supernode_degree: int = 10_000
    deadline_s: float = 10.0
    breaker_failures: int = 5
    breaker_open_s: float = 5.0
    token_hours: int = 24
    ongoing_requests: int = 64
    queued_requests: int = 256


class OverlaySettings(Section):
    """Built-in overlays."""

    top_k: int = Field(default=100, ge=1, description="entities of a case, and of a tenant, that are annotated")
    damping: float = 0.85
    tolerance: float = Field(default=1e-12, description="PageRank stops when the ranks change by less, times entities")
    iterations_max: int = Field(default=200, ge=1)
    seed: int = 42
    stale_after_h: float = 24.0
    gate_overlap: float = Field(default=0.5, description="least share of the last top-K that has to be in the new one")
    gate_rbo: float = Field(default=0.5, description="least rank-biased overlap with the last top-K: early ranks count")
    gate_kendall: float = Field(default=0.0, description="least Kendall tau of the entities that both top-Ks hold")
    write_back_records: int = Field(default=1_000_000, description="values that one run may write back in all")
    append_deadline_s: float = Field(default=60.0, description="how long a write-back waits for the log")
    keep_results: int = Field(default=5, description="runs of an overlay whose results stay on disk")
    edges_per_partition: int = Field(default=4_000_000, description="edges for which one more actor is worth its cost")
    partition_actors_max: int = Field(default=64, description="partition actors of one job")
    job_attempts: int = Field(default=2, ge=1, description="how often a job begins anew after an actor died")
    job_timeout_s: float = Field(default=600.0, description="longest wait for one call to the actors")
    backend: Literal["cpu", "cuda", "auto"] = "auto"


class RaySettings(Section):
    """The Ray cluster that actors and jobs run on."""

    address: str = Field(default="", description="cluster to join, `auto` for this machine's; empty: start one here")
    dashboard_port: int = 8265


class Settings(Section):
    """The whole configuration."""

    state_dir: Path = Path(".intelgraph")
    records: RecordLimits = RecordLimits()
    ingest: IngestLimits = IngestLimits()
    log: LogSettings = LogSettings()
    shards: ShardSettings = ShardSettings()
    lake: LakeSettings = LakeSettings()
    query: QuerySettings = QuerySettings()
    overlays: OverlaySettings = OverlaySettings()
    ray: RaySettings = RaySettings()


ENVIRONMENT_PREFIX = "INTELGRAPH__"


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            *sections, field = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            part = found
            for section in sections:
                part = part.setdefault(section, {})
            part[field] = yaml.safe_load(text)
    return found


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from defaults, a YAML file and the environment, in this order.

    Args:
        path: YAML file; INTELGRAPH_CONFIG names it when absent.

    Raises:
        Rejected: a key is unknown or a value is of the wrong type; the message names it.
    """
    environment = os.environ if environment is None else environment
    named = path or (Path(environment["INTELGRAPH_CONFIG"]) if environment.get("INTELGRAPH_CONFIG") else None)
    values: dict[str, Any] = {}
    if named is not None:
        try:
            values = yaml.safe_load(named.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise Rejected(f"configuration file {named}: {error}") from error
    values = _merge(values, _from_environment(environment))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Rejected(f"configuration: {lines}") from error
