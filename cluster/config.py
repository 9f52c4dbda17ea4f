"""Every setting and every limit, by name, in frozen models.

Loaded once at start: `load()` takes the defaults below, then the file that INTELGRAPH_CONFIG names, then
INTELGRAPH__SECTION__FIELD from the environment; later ones win and unknown keys are refused. The result is
passed on explicitly; nothing else reads the environment. Every number has bounds: below them the system would stand
still or answer nothing, above them it would hold more than a machine has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from cluster.config_control import ControlSettings
from cluster.config_fields import Bytes, Few, Hours, Many, Port, Seconds, Section, Share
from cluster.config_kafka import KafkaSettings
from cluster.config_s3 import LOOPBACK, S3Settings, SnapshotSettings
from cluster.config_streams import StreamSettings
from cluster.errors import Rejected

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class RecordLimits(Section):
    """What one record may be."""

    tenant_chars: Many = 256
    case_chars: Many = 256
    id_chars: Many = 1024
    record_bytes: Bytes = Field(default=1 << 20, description="one record as JSON; a larger one is a dead letter")
    properties: Many = Field(default=256, description="properties of one record")
    property_bytes: Bytes = Field(default=256 << 10, description="one value, as canonical JSON")
    list_items: Many = 10_000
    relationship_types_per_tenant: Many = 500
    property_names_per_tenant: Many = 5_000


class IngestLimits(Section):
    """Bounds of the ingest path."""

    batch_records: Many = 8_000
    batch_bytes: Bytes = 4 << 20
    line_bytes: Bytes = Field(default=4 << 20, description="longest line of a file that is kept for its dead letter")
    file_bytes: Bytes = Field(default=512 << 20, description="largest file that must be read whole (STIX)")
    http_body_bytes: Bytes = 8 << 20
    http_batch_records: Many = 10_000
    idempotency_hours: Hours = 24
    idempotency_keys: Many = Field(
        default=10_000, description="of a tenant; over that the oldest answers are forgotten"
    )
    idempotency_positions: Many = Field(
        default=500_000,
        description="of a tenant: keys whose records got positions; over that a new key is refused, none is forgotten",
    )
    idempotency_answer_bytes: Bytes = Field(default=64 << 10, description="a longer answer is not kept for retries")
    workers: Few = 1
    retry_first_s: Seconds = Field(default=0.05, description="first wait after a store has failed; doubles each time")
    retry_most_s: Seconds = Field(default=5.0, description="longest wait between two attempts")
    retry_deadline_s: Seconds = Field(default=600.0, description="a source stops with the error after so long")
    push_deadline_s: Seconds = Field(default=5.0, description="so long a push whose outcome is unknown is sent again")
    push_wait_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=2.0, description="so long a push waits for another with its Idempotency-Key; then it is told to retry"
    )
    push_claim_s: Seconds = Field(
        default=15.0, description="so long a push holds its Idempotency-Key; then a retry takes it over"
    )
    dead_letter_payload_bytes: Bytes = 1 << 20
    dead_letter_attempts: Few = Field(
        default=5, description="after so many failed replays a dead letter is quarantined"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._ordered("retry_first_s", "retry_most_s")
        return self


class LogSettings(Section):
    """The event log."""

    kind: Literal["redis", "kafka"] = Field(default="redis", description="redis: the embedded one")
    kafka: KafkaSettings = KafkaSettings()
    partitions: Few = 8
    max_bytes: Bytes = Field(default=2 << 30, description="over this, push gets 429 and sources are paused")
    entry_bytes: Bytes = Field(default=8 << 20, description="largest entry of the log")
    control_bytes: Bytes = Field(
        default=64 << 20,
        description="what the control partition keeps, about; older copies of the control store need a checkpoint",
    )
    read_entries: Many = Field(default=64, description="entries of one partition in one reading")
    read_bytes: Bytes = Field(default=256 << 10, description="bytes of one partition in one reading")
    block_ms: Annotated[int, Field(ge=1, le=60_000)] = 500
    interval_ms: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=20, description="between two readings of a shard's writer, unless its shard is busy for longer"
    )
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.block_ms >= self.timeout_s * 500:
            raise ValueError(f"block_ms is {self.block_ms}; it has to be below half of timeout_s, {self.timeout_s}")
        return self


class ShardSettings(Section):
    """Hot shards and their writers."""

    embedded: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=2, description="FalkorDB processes that `up` starts on this machine"
    )
    external: tuple[str, ...] = Field(
        default=(),
        description="addresses of empty Neo4j databases that the first start takes as shards, neo4j-0 and on",
    )
    write_rows: Many = Field(default=1_000, description="rows of one write query")
    timeout_s: Seconds = 30.0
    read_timeout_s: Seconds = 10.0
    checkpoint_s: Seconds = Field(default=5.0, description="between two checkpoints, at least")
    checkpoint_share: Annotated[float, Field(ge=0.001, le=1)] = Field(
        default=0.02, description="of the time that they may take: a long one is followed by a longer pause"
    )
    checkpoint_most_s: Seconds = Field(default=20.0, description="longest pause for that reason")
    lease_s: Seconds = 10.0
    canary_s: Annotated[float, Field(ge=0, le=3_600)] = Field(
        default=0.0, description="between two canaries of a shard, entries that hold nothing; 0: there are none"
    )
    index_wait_s: Seconds = Field(default=300.0, description="longest wait for an index that Neo4j fills")
    neo4j_user: str = "neo4j"
    neo4j_password_file: Path | None = Field(default=None, description="holds the password of `neo4j_user` alone")
    neo4j_database: str = "neo4j"
    neo4j_lanes: Few = Field(
        default=2, description="transactions that a writer has at work in one Neo4j, of log partitions apart"
    )
    neo4j_ca_file: Path | None = Field(
        default=None, description="PEM; vouches for `bolt+s` and `neo4j+s` instead of the system's authorities"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any("@" in uri for uri in self.external):
            raise ValueError("external: an address is bolt+s://host:port, without user and password")
        return self


class LakeSettings(S3Settings):
    """The lake appender, and where the lake's files lie."""

    enabled: bool = Field(default=True, description="false: nothing is kept beyond the log (for benchmarks)")
    interval_ms: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=250, description="between two readings of the log that leave nothing behind"
    )
    commit_s: Seconds = 5.0
    commit_bytes: Bytes = 64 << 20
    keep_metadata: Few = 20
    compact_files: Many = 200


class QuerySettings(Section):
    """Bounds of the query API."""

    host: str = "127.0.0.1"
    port: Port = 8080
    page_default: Many = 100
    page_max: Many = 1_000
    hops_max: Annotated[int, Field(ge=1, le=10)] = 3
    neighbours_max: Many = Field(default=100_000, description="paths looked at by one neighbourhood query")
    supernode_degree: Many = 10_000
    deadline_s: Seconds = 10.0
    breaker_failures: Few = 5
    breaker_open_s: Seconds = 5.0
    token_hours: Hours = 24
    ongoing_requests: Many = 64
    queued_requests: Many = 256
    hosts: Few = Field(default=1, description="hosts that answer: each has a replica and a proxy of its own")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._ordered("page_default", "page_max")
        if self.hosts > 1 and self.host in LOOPBACK:
            raise ValueError(f"hosts is {self.hosts}, but no other reaches host {self.host}: set it to 0.0.0.0")
        return self


class OverlaySettings(Section):
    """Built-in overlays."""

    top_k: Many = Field(default=100, description="entities of a case, and of a tenant, that are annotated")
    damping: Annotated[float, Field(gt=0, lt=1)] = 0.85
    tolerance: Share = Field(
        default=1e-12,
        description="PageRank stops when the ranks change by less, times entities; 0: after all iterations",
    )
    iterations_max: Many = Field(default=200)
    seed: Annotated[int, Field(ge=0, le=(1 << 32) - 1)] = 42
    stale_after_h: Annotated[float, Field(gt=0, le=87_600)] = 24.0
    gate_overlap: Share = Field(default=0.5, description="least share of the last top-K that has to be in the new one")
    gate_rbo: Share = Field(default=0.5, description="least rank-biased overlap with the last top-K: early ranks count")
    gate_kendall: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.0, description="least Kendall tau of the entities that both top-Ks hold"
    )
    write_back_records: Many = Field(default=1_000_000, description="values that one run may write back in all")
    append_deadline_s: Seconds = Field(default=60.0, description="how long a write-back waits for the log")
    keep_results: Few = Field(default=5, description="runs of an overlay whose results stay on disk")
    edges_per_partition: Many = Field(default=4_000_000, description="edges for which one more actor is worth its cost")
    partition_actors_max: Few = Field(default=64, description="partition actors of one job")
    job_attempts: Few = Field(default=2, description="how often a job begins anew after an actor died")
    job_timeout_s: Seconds = Field(default=600.0, description="longest wait for one call to the actors")
    backend: Literal["cpu", "cuda", "auto"] = "auto"


class RaySettings(Section):
    """The Ray cluster that actors and jobs run on."""

    address: str = Field(default="", description="cluster to join, `auto` for this machine's; empty: start one here")
    dashboard_port: Port = 8265
    actors: Literal["head", "spread"] = Field(
        default="head", description="where shard writers and stream workers run: beside the node, or over all hosts"
    )


class NodeSettings(Section):
    """The process that starts everything on this machine."""

    log_bytes: Bytes = Field(default=16 << 20, description="node.log is set aside when it is larger")
    log_files: Few = Field(default=3, description="older node.logs that are kept")


class Settings(Section):
    """The whole configuration."""

    state_dir: Path = Path(".intelgraph")
    records: RecordLimits = RecordLimits()
    ingest: IngestLimits = IngestLimits()
    streams: StreamSettings = StreamSettings()
    log: LogSettings = LogSettings()
    control: ControlSettings = ControlSettings()
    shards: ShardSettings = ShardSettings()
    lake: LakeSettings = LakeSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    query: QuerySettings = QuerySettings()
    overlays: OverlaySettings = OverlaySettings()
    ray: RaySettings = RaySettings()
    node: NodeSettings = NodeSettings()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        largest, entry = self.records.record_bytes, self.log.entry_bytes
        if largest > entry // 2:  # an entry holds a record whole, and says some things of it beside
            raise ValueError(f"records.record_bytes is {largest}; it can be at most half of log.entry_bytes, {entry}")
        if self.ray.actors == "spread" and (self.log.kind == "redis" or self.shards.embedded):
            raise ValueError("ray.actors is spread, and embedded parts are reached from their own host alone:"
                             " set log.kind to kafka and shards.embedded to 0")  # fmt: skip
        return self


ENVIRONMENT_PREFIX = "INTELGRAPH__"
_SECRETS = frozenset({"password", "secret_key"})
"""Fields whose value is taken from the environment as it is written, and shown in no message."""
_OF_ENVIRONMENT = "secret_key"
"""Such a field that no file may hold."""


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
            part[field] = text if field in _SECRETS else yaml.safe_load(text)
    return found


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from defaults, a YAML file and the environment, in this order.

    Args:
        path: YAML file; INTELGRAPH_CONFIG names it when absent.

    Raises:
        Rejected: a key is unknown, or a value is of the wrong type or out of its bounds; the message names it and
            says what it wants.
    """
    environment = os.environ if environment is None else environment
    named = path or (Path(environment["INTELGRAPH_CONFIG"]) if environment.get("INTELGRAPH_CONFIG") else None)
    values: dict[str, Any] = {}
    if named is not None:
        try:
            values = yaml.safe_load(named.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise Rejected(f"configuration file {named}: {error}") from error
        for section in values:
            if isinstance(values[section], dict) and _OF_ENVIRONMENT in values[section]:
                name = f"{ENVIRONMENT_PREFIX}{section}__{_OF_ENVIRONMENT}".upper()
                raise Rejected(
                    f"configuration file {named}: {section}.{_OF_ENVIRONMENT} is for the environment: {name}"
                )
    values = _merge(values, _from_environment(environment))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise Rejected(f"configuration: {'; '.join(map(_told, error.errors()))}") from error


def _told(error: ErrorDetails) -> str:
    """One line: the setting, what it wants, and what it got where that is a number."""
    name, wants = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
    got = error["input"]
    shown = isinstance(got, int | float) and not _SECRETS.intersection(error["loc"])
    return f"{name or 'settings'}: {wants}" + (f", not {got}" if shown else "")
