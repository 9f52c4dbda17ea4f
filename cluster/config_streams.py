"""The settings of streams: see `cluster.config`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cluster.config_fields import Bytes, Few, Seconds, Section
from cluster.config_kafka import KafkaConnection
from cluster.config_registry import RegistrySettings
from cluster.config_scaling import ScalingSettings


class StreamSettings(Section):
    """Topics that are read without end, and the workers that read them."""

    kafka: KafkaConnection = KafkaConnection()
    registry: RegistrySettings = RegistrySettings()
    workers_min: Few = Field(default=1, description="actors that share out all partitions of all streams, at least")
    workers_max: Few = Field(default=4, description="and at most; never more than there are partitions")
    scaling: ScalingSettings = ScalingSettings()
    cores_free: Annotated[float, Field(ge=0, le=64)] = Field(
        default=0.8,
        description="of each host of workers; with fewer, who reads far more than others is slowed; 0: never",
    )
    lease_s: Seconds = Field(default=10.0, description="so long a partition waits for a worker that says nothing more")
    look_s: Seconds = Field(default=1.0, description="how often topics are looked at and partitions shared out")
    block_ms: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100, description="longest wait of one reading for a first record"
    )
    interval_ms: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=40, description="between two readings of a stream that has no more behind them: a batch for what comes"
    )
    ahead_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=1.0,
        description="nothing is read while all shards are further behind the log; 0: it is read until the log is full",
    )
    ahead_records: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=20_000, description="and have more records before them than these"
    )
    ahead_most_s: Seconds = Field(
        default=5.0, description="longest time in which nothing is read for that reason; then it is for a moment"
    )
    timeout_s: Seconds = 10.0
    read_ahead_bytes: Bytes = Field(default=32 << 20, description="fetched records that a worker keeps unread")
    batch_bytes: Bytes = Field(
        default=64 << 20, description="one batch of a topic, unpacked; at a larger one its partition stops"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._ordered("workers_min", "workers_max")
        if self.block_ms > self.timeout_s * 500:
            raise ValueError(f"block_ms is {self.block_ms}; it can be at most half of timeout_s, {self.timeout_s}")
        return self
