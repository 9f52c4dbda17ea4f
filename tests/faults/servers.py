"""The servers of an installation for fault runs, all on this machine: the log's and the shards', and its stores.

A server that a test kills is started again by the test, with the same step before serving that the node takes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from actors.checkpoints import ShardCheckpoints
from actors.stack import Stack
from cluster.config import Settings
from cluster.embedded import Role, Running, ServerSpec, ensure, kill, kill_server, server_spec
from cluster.errors import IntelGraphError
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.log import EventLog
from cluster.stores.open_log import open_log
from cluster.stores.redis_address import RedisAddress
from cluster.stores.shard import StoredShard
from serve_apps.before_serving import raise_epoch_before_serving
from tests.fault_proxy import FaultProxy, Faults
from tests.faults.memory import family, resident_bytes
from tests.faults.recording import Outcome, recordings

MEMORY_BYTES = 512 << 20
DEADLINE_S = 30.0


def wait_until(what: Callable[[], bool], deadline_s: float = DEADLINE_S, message: str = "") -> None:
    """Polls until it is true. Raises AssertionError after the deadline; an operating error counts as not yet."""
    end = time.monotonic() + deadline_s
    while True:
        with suppress(IntelGraphError):
            if what():
                return
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {message or what}"
        time.sleep(0.02)


class Servers:
    """See the module. The settings' state directory has to be short, for the sockets in it."""

    stack_name = "embedded"
    """What a report calls the parts that this runs on."""
    deadline_s = DEADLINE_S
    """How long to wait for what has to come at last."""

    def __init__(self, settings: Settings, shard_ids: list[str]) -> None:
        self.settings, self.partitions, self.shard_ids = settings, settings.log.partitions, shard_ids
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stack = Stack(settings)
        self.running: dict[str, Running] = {}
        self._checkpoints: dict[str, ShardCheckpoints] = {}
        self.producers: list[Any] = []
        self.recording = recordings.of(self)

    def spec(self, name: str) -> ServerSpec:
        """Where a server lives."""
        return server_spec(self.stack.state_dir, Role.LOG if name == "log" else Role.SHARD, name, MEMORY_BYTES)

    def start_servers(self) -> None:
        """Log and shards, as the node starts them."""
        self.stack.publish_first_map(self.stack.register_embedded())
        for name in ("log", *self.shard_ids):
            self.restart(name)
        self.stack.control.positions.bind_log(self.log.identity)
        now = time.time()
        current = self.stack.current_map()
        for shard in self.shard_ids:
            self.stack.control.positions.register(shard, current.partitions_of(shard), now)
        self.recording.start()

    def restart(self, name: str) -> None:
        """Start a server that is down, or adopt it."""
        spec = self.spec(name)
        self.running[name] = ensure(spec, raise_epoch_before_serving(self.stack, spec))
        self.recording.mark(f"{name} started", fault=False)

    def kill(self, name: str) -> None:
        """SIGKILL a server."""
        self.recording.mark(f"{name} killed")
        kill(self.running[name])

    def pid(self, name: str) -> int:
        """A running server's process."""
        return self.running[name].pid

    def pause(self, name: str) -> None:
        """A server stands still, with its connections open, until `resume`."""
        self.recording.mark(f"{name} stopped")
        os.kill(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """It goes on after `pause`."""
        os.kill(self.pid(name), signal.SIGCONT)
        self.recording.mark(f"{name} continued", fault=False)

    def saves(self, shard: str) -> ShardCheckpoints:
        """What the node's checkpoint thread of a shard has."""
        if shard not in self._checkpoints:
            positions, mine = self.stack.control.positions, self.stack.current_map().partitions_of(shard)
            self._checkpoints[shard] = ShardCheckpoints(shard, lambda: self.stack.open_shard(shard), positions, mine)
        return self._checkpoints[shard]

    def checkpoint(self, shard: str, deadline_s: float = DEADLINE_S) -> None:
        """Save a shard; again where the connection is of the server before."""

        def saved() -> bool:
            self.saves(shard).save(self.running[shard])
            return True

        wait_until(saved, deadline_s, f"{shard} saved")

    def memory_bytes(self) -> int:
        """What this process, its children and the servers have in memory of their own."""
        return resident_bytes(family([os.getpid(), *(running.pid for running in self.running.values())]))

    def end_servers(self) -> None:
        """Servers, and what was opened, end."""
        for saves in self._checkpoints.values():
            saves.close()
        if "log" in self.__dict__:
            self.log.close()
        for name in ("log", *self.shard_ids):
            kill_server(self.spec(name))
        self.stack.control.close()

    @contextmanager
    def behind_proxy(self, name: str) -> Iterator[FaultProxy]:
        """A proxy where everybody looks for a running server; who connected before is not behind it."""
        socket = self.running[name].socket
        far = socket.rename(socket.with_suffix(".far"))
        try:
            with FaultProxy.unix(far, socket) as proxy:
                proxy.told = self.told_of(name)
                yield proxy
        finally:
            far.rename(socket)

    def told_of(self, name: str) -> Callable[[Faults], None]:
        """Marks what a proxy before a server does wrong."""
        return lambda faults: self.recording.mark(f"{name}: {faults.said}", fault=faults != Faults())

    def open_beside(self, name: str) -> StoredShard:
        """A connection to a shard past any proxy, for who only looks."""
        far = self.spec(name).socket.with_suffix(".far")
        if not far.exists():
            return self.stack.open_shard(name)
        return FalkorShard(FalkorClient(f"unix://{far}", self.stack.password, timeout_s=1.0))

    def open_log_beside(self) -> EventLog:
        """The same for the log."""
        far = self.spec("log").socket.with_suffix(".far")
        address = RedisAddress(
            socket=str(far if far.exists() else self.spec("log").socket), password=self.stack.password
        )
        return open_log(self.settings.log, address)

    @property
    def outcome(self) -> Outcome:
        """What checks find, for the report."""
        return self.recording.outcome

    @cached_property
    def log(self) -> EventLog:
        """A connection to the log for what the tests do themselves; opened before the load begins."""
        return self.stack.open_log()
