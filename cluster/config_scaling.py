"""The settings of how many stream workers there are: see `cluster.config` and `actors.scaling`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cluster.config_fields import Few, Many, Seconds, Section, Share


class ScalingSettings(Section):
    """When there are more stream workers, and when fewer. Between the two limits of a figure nothing changes."""

    up_lag_records: Many = Field(default=20_000, description="records unread, over which a worker is lacking")
    up_lag_s: Seconds = Field(default=5.0, description="or age of the last record read, of more than a few")
    up_cpu: Share = Field(default=0.8, description="or share of a core that workers take while lag grows")
    up_looks: Few = Field(default=3, description="looks in a row that find a worker lacking, before there are more")
    up_pause_s: Seconds = Field(default=10.0, description="so long a change is waited for before there are more again")
    catch_up_s: Seconds = Field(default=10.0, description="lag that will be gone within so long wants no worker more")
    cores_free: Annotated[float, Field(ge=0, le=64)] = Field(
        default=0.8,
        description="cores that some host has to have free before there are more; 0: they come anyway",
    )
    down_lag_records: Many = Field(default=1_000, description="records unread, up to which a worker may be too much")
    down_cpu: Share = Field(default=0.6, description="and share of a core that each of the others would take then")
    down_looks: Few = Field(default=30, description="looks in a row that find one too much, before it is drained")
    down_pause_s: Seconds = Field(default=60.0, description="between a change and the next worker that is drained")
    window_looks: int = Field(default=10, ge=2, le=1_000, description="looks from which lag's slope is taken")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._ordered("down_lag_records", "up_lag_records")
        return self
