"""The settings of the control store: see `cluster.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FieldSerializationInfo, SecretStr, field_serializer, model_validator

from cluster.config_fields import WITH_SECRETS, Seconds, Section


class ControlSettings(Section):
    """The control store: shard map, sources, loads, dead letters, runs, audit."""

    kind: Literal["sqlite", "postgresql"] = Field(
        default="sqlite", description="a file of the state directory, or a database that several hosts reach"
    )
    host: str = Field(default="127.0.0.1", description="of PostgreSQL, 14 or newer; a standby takes no writes")
    port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    database: str = Field(default="intelgraph", description="has to be there, in UTF-8, and to belong to the user")
    user: str = "intelgraph"
    password: SecretStr = SecretStr("")
    tls: Literal["verify-full", "verify-ca", "require", "disable"] = "verify-full"
    ca_file: Path | None = Field(default=None, description="PEM file that vouches for the server")
    busy_timeout_s: Seconds = Field(default=10.0, description="so long a writer waits for others")

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        if self.kind == "postgresql":
            if not (self.user and self.password.get_secret_value()):
                raise ValueError("kind is postgresql, which needs user and password")
            if self.tls.startswith("verify") and self.ca_file is None:
                raise ValueError(f"tls is {self.tls}, which needs ca_file")
        return self

    @field_serializer("password", when_used="json")
    def _password(self, value: SecretStr, info: FieldSerializationInfo) -> str:
        return value.get_secret_value() if info.context is WITH_SECRETS else str(value)
