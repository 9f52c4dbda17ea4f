"""Where a Redis server is and how to connect to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is; can be pickled and handed to an actor.

    Args:
        socket: path of a unix socket; if empty, host and port are used.
        username: empty for the default user.
        tls: verify the server's certificate and encrypt; over TCP only.
    """

    socket: str = ""
    host: str = "127.0.0.1"
    port: int = 6379
    username: str = ""
    password: SecretStr | None = None
    tls: bool = False

    def connect(self, timeout_s: float) -> redis.Redis:
        """A client without retries of its own; it connects at the first command."""
        where: dict[str, Any] = {"host": self.host, "port": self.port, "ssl": self.tls}
        if self.socket:
            where = {"unix_socket_path": self.socket}
        return redis.Redis(
            username=self.username or None,
            password=self.password.get_secret_value() if self.password else None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            **where,
        )
