"""The configuration file of an embedded server, as text: a pure function of its spec and passwords."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster.embedded.passwords import Passwords
from cluster.embedded.spec import Role, ServerSpec
from cluster.errors import Rejected

_PLAN_CACHE_ENTRIES = 256
"""Compiled queries that a shard thread keeps: templates times relationship types; its default of 25 thrashes."""

_PENDING_CHANGES = 4_000
"""Of a matrix that a query goes through, before they are merged into it; each write and each reading sorts those that
are not. Its default of 10,000 took half of a shard's CPU at 2,000 small records a second; 2,000 cost a quarter more a
record where a million are there already, since each merge copies a matrix."""

_APPLICATION_COMMANDS = "+@all -@admin -@dangerous +info"
"""Denied with these: FLUSHALL, FLUSHDB, DEBUG, CONFIG, SHUTDOWN, ACL, MODULE, KEYS, SWAPDB, RESTORE, REPLICAOF."""

_SHARD_DENIED = "-graph.config -graph.debug"


def render(spec: ServerSpec, passwords: Passwords, module: Path) -> str:
    """The text of redis.conf; it holds hashes of the passwords, never the passwords.

    The application's user starts switched off: nobody is served before the owner has had its say.

    Args:
        module: FalkorDB's library, loaded by shards.

    Raises:
        Rejected: a path has a character that the format cannot carry.
    """
    lines = _common(spec) + _users(spec, passwords)
    match spec.role:
        case Role.LOG:
            lines += _log(spec)
        case Role.CACHE:
            lines += _cache(spec)
        case Role.SHARD:
            lines += _shard(spec, module)
    return "\n".join(lines) + "\n"


def _common(spec: ServerSpec) -> list[str]:
    return [
        "port 0",
        f"unixsocket {_quoted(spec.socket)}",
        "unixsocketperm 700",
        f"dir {_quoted(spec.folder)}",
        f"logfile {_quoted(spec.log_file)}",
        f"pidfile {_quoted(spec.pid_file)}",
        "daemonize yes",
        "databases 1",
        "save ''",
        "tcp-backlog 511",
        "timeout 0",
        "maxclients 1000",
        "enable-debug-command no",
        "enable-module-command no",
        "crash-memcheck-enabled no",
        f"maxmemory {spec.max_memory_bytes}",
    ]


def _users(spec: ServerSpec, passwords: Passwords) -> list[str]:
    denied = f" {_SHARD_DENIED}" if spec.role is Role.SHARD else ""
    application = _sha256(passwords.application.get_secret_value())
    operator = _sha256(passwords.operator.get_secret_value())
    return [
        f"user default reset off #{application} ~* &* {_APPLICATION_COMMANDS}{denied}",
        f"user operator reset on #{operator} ~* &* +@all",
    ]


def _log(spec: ServerSpec) -> list[str]:
    return [
        "maxmemory-policy noeviction",
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        "aof-load-truncated yes",
        "auto-aof-rewrite-percentage 100",
        "auto-aof-rewrite-min-size 64mb",
        "stream-node-max-bytes 4096",
        "stream-node-max-entries 100",
    ]


def _cache(spec: ServerSpec) -> list[str]:
    return ["maxmemory-policy allkeys-lru", "appendonly no"]


def _shard(spec: ServerSpec, module: Path) -> list[str]:
    options = {
        "THREAD_COUNT": spec.threads,
        "OMP_THREAD_COUNT": 1,
        "DELTA_MAX_PENDING_CHANGES": _PENDING_CHANGES,
        "CACHE_SIZE": _PLAN_CACHE_ENTRIES,
        "RESULTSET_SIZE": -1,
        "MAX_QUEUED_QUERIES": spec.queued_queries,
        "TIMEOUT_MAX": spec.query_timeout_ms,
        "TIMEOUT_DEFAULT": spec.query_timeout_ms,
        "QUERY_MEM_CAPACITY": spec.query_memory_bytes,
        "CMD_INFO": "no",
        "IMPORT_FOLDER": _quoted(spec.folder / "import"),
        "TEMP_FOLDER": _quoted(spec.folder),
    }
    arguments = " ".join(f"{name} {value}" for name, value in options.items())
    return [
        "maxmemory-policy noeviction",
        "appendonly no",
        "rdbcompression yes",
        "rdbchecksum yes",
        f"loadmodule {_quoted(module)} {arguments}",
    ]


def _quoted(path: Path) -> str:
    text = str(path)
    if any(character in text for character in '"\\') or not text.isprintable():
        raise Rejected(f"{text!r} has a quote, backslash or control character; choose another state directory")
    return f'"{text}"'


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
