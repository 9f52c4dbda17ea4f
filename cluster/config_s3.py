"""The settings of a place in S3: see `cluster.config`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, FieldSerializationInfo, SecretStr, field_serializer, field_validator, model_validator

from cluster.config_fields import WITH_SECRETS, Seconds, Section

_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class S3Settings(Section):
    """Where files lie in S3, and how its server is reached; the state directory where `uri` is empty."""

    uri: str = Field(default="", description="s3://bucket/prefix, of this installation alone")
    endpoint: str = Field(default="", description="https://host:port of a server of S3; empty: AWS")
    region: str = "us-east-1"
    ca_file: Path | None = Field(
        default=None, description="PEM; vouches for the server beside the system's authorities"
    )
    key_id: str = ""
    secret_key: SecretStr = Field(default=SecretStr(""), description="in the environment only")
    request_s: Seconds = Field(default=30.0, description="so long a server may say nothing")

    @property
    def bucket(self) -> str:
        """The bucket that `uri` names."""
        return self.uri.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What all keys begin with, without a slash at its end."""
        return self.uri.removeprefix("s3://").partition("/")[2]

    @field_validator("ca_file")
    @classmethod
    def _from_everywhere(cls, value: Path | None) -> Path | None:
        """Other processes have other working directories."""
        return value.absolute() if value else None

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if not self.uri:
            return self
        if not _URI.fullmatch(self.uri):
            raise ValueError("uri: give s3://bucket/prefix, of letters, digits, '.', '_', '=' and '-'")
        if not (self.key_id and self.secret_key.get_secret_value()):
            raise ValueError("uri is in S3, which needs key_id and secret_key")
        if not self.endpoint:
            return self
        server = urlsplit(self.endpoint)
        if "@" in self.endpoint or server.scheme not in ("http", "https") or not server.hostname:
            raise ValueError("endpoint: give https://host:port, without user and password")
        if server.scheme == "http" and server.hostname not in LOOPBACK:
            raise ValueError("endpoint: http:// would show everything to the network; give https://")
        return self

    @field_serializer("secret_key", when_used="json")
    def _secret(self, value: SecretStr, info: FieldSerializationInfo) -> str:
        return value.get_secret_value() if info.context is WITH_SECRETS else str(value)


class SnapshotSettings(S3Settings):
    """Where snapshots lie."""
