"""The settings of Kafka clusters: see `cluster.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FieldSerializationInfo, SecretStr, field_serializer, model_validator

from cluster.config_fields import WITH_SECRETS, Bytes, Section


class KafkaConnection(Section):
    """How a Kafka cluster is reached."""

    bootstrap: str = Field(default="127.0.0.1:9092", description="brokers to ask first: host:port, host:port")
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    user: str = ""
    password: SecretStr = SecretStr("")
    ca_file: Path | None = Field(default=None, description="PEM file that vouches for the brokers; none: the system's")

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        if self.security.startswith("SASL") and not (self.user and self.password.get_secret_value()):
            raise ValueError(f"security is {self.security}, which needs user and password")
        return self

    @field_serializer("password", when_used="json")
    def _password(self, value: SecretStr, info: FieldSerializationInfo) -> str:
        return value.get_secret_value() if info.context is WITH_SECRETS else str(value)


class KafkaSettings(KafkaConnection):
    """The Kafka cluster that holds the event log; read only where `log.kind` is `kafka`."""

    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "intelgraph"
    replication_factor: Annotated[int, Field(ge=1, le=9)] = 3
    min_in_sync: Annotated[int, Field(ge=1, le=9)] = Field(
        default=2, description="replicas that hold an entry before it is acknowledged"
    )
    compression: Literal["none", "lz4", "zstd"] = "lz4"
    read_ahead_bytes: Bytes = Field(default=16 << 20, description="fetched entries that a process keeps unread")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._ordered("min_in_sync", "replication_factor")
        return self
