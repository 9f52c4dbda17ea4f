"""What the sections of the configuration are made of: see `cluster.config`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Few = Annotated[int, Field(ge=1, le=1_000)]
"""Processes, attempts, files: each costs something by itself."""
Many = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Items."""
Bytes = Annotated[int, Field(ge=64, le=1 << 40)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Hours = Annotated[int, Field(ge=1, le=8_760)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Share = Annotated[float, Field(ge=0, le=1)]


WITH_SECRETS = {"secrets": True}
"""`model_dump(mode="json", context=WITH_SECRETS)` gives secrets as they are, for a process of the same installation."""


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys and numbers that are none forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def _ordered(self, less: str, more: str) -> None:
        """Refuse that one setting of this section is over another."""
        small, large = getattr(self, less), getattr(self, more)
        if small > large:
            raise ValueError(f"{less} is {small}; it can be at most {more}, which is {large}")
