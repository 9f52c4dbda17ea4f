"""Restarts servers that have exited: a pure decision, and a thin loop around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cluster.embedded.server import BeforeServing, alive, ensure
from cluster.embedded.spec import Running, ServerSpec
from cluster.errors import IntelGraphError
from cluster.telemetry.logs import Log

_LOG = Log(__name__)
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How eagerly an exited server is started again.

    Args:
        first_s: wait before the second start in a row; the first is at once. Doubles up to `longest_s`.
        per_minute: starts within any 60 s; over that it waits until there is room again, and never gives up.
        steady_s: after so long without an exit the waits begin anew.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    per_minute: int = 6
    steady_s: float = 120.0


@dataclass(frozen=True, slots=True)
class History:
    """When a server was started again, seconds of a monotonic clock, oldest first; bounded by the policy."""

    starts_s: tuple[float, ...] = ()
    in_a_row: int = 0

    def started(self, now_s: float, policy: RestartPolicy) -> History:
        """The history after one more start."""
        steady = not self.starts_s or now_s - self.starts_s[-1] > policy.steady_s
        kept = (*self.starts_s, now_s)[-policy.per_minute :]
        return replace(self, starts_s=kept, in_a_row=1 if steady else self.in_a_row + 1)


@dataclass(frozen=True, slots=True)
class Keep:
    """It runs: nothing to do."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Start it not before `until_s` of the same clock."""

    until_s: float


Decision = Keep | Restart | Wait


def decide(exited: bool, now_s: float, history: History, policy: RestartPolicy) -> Decision:
    """What to do about one server. Pure.

    Args:
        exited: its process is gone, or its last start has failed.
        now_s: the clock that `history` was kept with.
    """
    if not exited:
        return Keep()
    if not history.starts_s or now_s - history.starts_s[-1] > policy.steady_s:
        return Restart()
    due_s = history.starts_s[-1] + min(policy.first_s * 2.0 ** min(history.in_a_row - 1, 30), policy.longest_s)
    if len(history.starts_s) >= policy.per_minute:
        due_s = max(due_s, history.starts_s[-policy.per_minute] + _WINDOW_S)
    return Restart() if now_s >= due_s else Wait(due_s)


Restarted = Callable[[Running], None]


@dataclass(slots=True)
class Watched:
    """A server under watch; `running` is None while it is down."""

    spec: ServerSpec
    running: Running | None
    history: History = field(default_factory=History)


def watch(
    servers: Mapping[str, Watched],
    before_serving: Callable[[ServerSpec], BeforeServing | None],
    restarted: Restarted,
    stopping: threading.Event,
    policy: RestartPolicy = RestartPolicy(),
    poll_s: float = 0.2,
) -> None:
    """Keeps servers running until `stopping` is set; then leaves them as they are.

    Args:
        servers: by name; `running` and `history` are kept up to date in place. One thread watches a server at a time.
        before_serving: for each start, what raises a shard's epoch before it serves anybody.
        restarted: told after each start, once the server serves. Both must be safe to call twice.
    """
    while not stopping.is_set():
        for server in servers.values():
            tick(server, before_serving(server.spec), restarted, time.monotonic(), policy)
        stopping.wait(poll_s)


def tick(
    server: Watched,
    before_serving: BeforeServing | None,
    restarted: Restarted,
    now_s: float,
    policy: RestartPolicy,
) -> None:
    """One look at one server. A failed start is logged and tried again when the policy says; nothing is raised."""
    exited = server.running is None or not alive(server.running)
    if not isinstance(decide(exited, now_s, server.history, policy), Restart):
        return
    server.running = None
    server.history = server.history.started(now_s, policy)
    _LOG.warning("server_restart", server=server.spec.name, in_a_row=server.history.in_a_row)
    try:
        server.running = ensure(server.spec, before_serving)
        restarted(server.running)
    except (IntelGraphError, OSError) as error:  # OSError: a full disk, say; whoever watches goes on
        _LOG.error("server_restart_failed", server=server.spec.name, reason=str(error))
