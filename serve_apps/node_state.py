"""What a node tells of itself, and what whoever joins it needs: read by every command, so it imports little."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from actors.priority import FIRST
from cluster.embedded.passwords import write_private

NODE_FILE = "node.json"


@dataclass
class NodeState:
    """What `node.json` says: how to reach this installation while it is up.

    Args:
        phase: what is being started, `ready`, or `failed`.
        notes: what a person should know: a port that was taken, say.
    """

    pid: int
    phase: str = "starting"
    api: str = ""
    dashboard: str = ""
    ray_address: str = ""
    notes: tuple[str, ...] = ()
    started: float = 0.0
    seconds: float = 0.0


def node_file(state_dir: Path) -> Path:
    """Where a node says how to reach it."""
    return state_dir / NODE_FILE


def read_node(state_dir: Path) -> NodeState | None:
    """The node of a state directory; None where none is up."""
    try:
        found = NodeState(**json.loads(node_file(state_dir).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if _is_locked(state_dir) else None


def _is_locked(state_dir: Path) -> bool:
    try:
        descriptor = os.open(state_dir / "node.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def token_file(state_dir: Path, *, several_hosts: bool) -> Path:
    """Where Ray's token is; a cluster of several hosts brought its own."""
    brought = os.environ.get("RAY_AUTH_TOKEN_PATH") if several_hosts else None
    return Path(brought) if brought else state_dir / "ray.token"


def ray_environment(state_dir: Path, *, several_hosts: bool = False) -> dict[str, str]:
    """What Ray's processes and whoever connects to them need in their environment. Creates the token once.

    Args:
        several_hosts: Ray was started by `ray up`: its processes call each other from host to host.
    """
    token = token_file(state_dir, several_hosts=several_hosts)
    if not token.exists():
        write_private(token, secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1" if several_hosts else "0",  # 0: all listens on loopback only
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": str(FIRST),
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # Ray's own, 0.1, takes 4% of a core for nothing
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
