"""The settings of a schema registry: see `cluster.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, FieldSerializationInfo, SecretStr, field_serializer, model_validator

from cluster.config_fields import WITH_SECRETS, Bytes, Many, Seconds, Section


class RegistrySettings(Section):
    """A schema registry with the Confluent-compatible API."""

    url: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$")] = Field(
        default="", description="where its API begins, such as https://registry:8443/apis/ccompat/v7"
    )
    user: str = ""
    password: SecretStr = SecretStr("")
    ca_file: Path | None = Field(default=None, description="PEM file that vouches for it; none: the system's")
    timeout_s: Seconds = 5.0
    missing_s: Seconds = Field(default=1.0, description="so long a schema may be missing until its record is bad")
    cached_schemas: Many = 1_000
    schema_bytes: Bytes = Field(default=4 << 20, description="longest answer of the registry that is read")

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        if bool(self.user) != bool(self.password.get_secret_value()):
            raise ValueError("user and password come together")
        return self

    @field_serializer("password", when_used="json")
    def _password(self, value: SecretStr, info: FieldSerializationInfo) -> str:
        return value.get_secret_value() if info.context is WITH_SECRETS else str(value)
