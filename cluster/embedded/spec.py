"""What an embedded server is, and what a running one looks like: values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr


class Role(StrEnum):
    """What a server is for; it decides durability, eviction and the FalkorDB module."""

    LOG = "log"
    CACHE = "cache"
    SHARD = "shard"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One embedded server: where it lives and how much it may use.

    Args:
        role: log, cache or shard.
        name: unique in its state directory, such as `log` or `shard-0`; names folder, socket and log lines.
        folder: its data, configuration, lock and log file; mode 0700.
        socket: unix socket, at most `paths.SOCKET_BYTES_MAX` bytes long.
        secrets: the state directory's `secrets.json`.
        max_memory_bytes: over it the log and a shard refuse writes and the cache evicts; 0 is unbounded.
        threads: query threads of a shard; the others have one thread.
        query_timeout_ms: longest query of a shard, reads and writes.
        query_memory_bytes: most memory of one query of a shard; 0 is unbounded.
        queued_queries: queries that may wait in a shard; more are refused.
        bundled_libgomp: use the libgomp of a wheel even where the system has one.
    """

    role: Role
    name: str
    folder: Path
    socket: Path
    secrets: Path
    max_memory_bytes: int
    threads: int = 2
    query_timeout_ms: int = 60_000
    query_memory_bytes: int = 0
    queued_queries: int = 1_000
    bundled_libgomp: bool = False

    @property
    def config_file(self) -> Path:
        """Written anew at each start, mode 0600."""
        return self.folder / "redis.conf"

    @property
    def log_file(self) -> Path:
        """What the server itself has to say."""
        return self.folder / "server.log"

    @property
    def pid_file(self) -> Path:
        """Written by the server before it loads its data; may be stale."""
        return self.folder / "server.pid"

    @property
    def lock_file(self) -> Path:
        """Locked by the server for as long as it lives."""
        return self.folder / "lock"

    @property
    def dump_file(self) -> Path:
        """A shard's checkpoint."""
        return self.folder / "dump.rdb"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Args:
        pid: its process.
        start_ticks: the process's start, in clock ticks since boot: tells it from a later owner of the same pid.
        socket: where it listens, and nowhere else.
        password: of the application's user, which is Redis's `default` user: no user name is needed.
    """

    spec: ServerSpec
    pid: int
    start_ticks: int
    socket: Path
    password: SecretStr


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished save of a shard.

    Args:
        file_bytes: size of the checkpoint.
        seconds: from the request to the file in its place.
        finished_s: when, seconds since 1970.
    """

    file_bytes: int
    seconds: float
    finished_s: int
