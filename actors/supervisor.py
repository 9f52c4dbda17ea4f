"""The supervisor: makes sure that every long-lived actor is there, by name, and starts again the one that is not.

Actors hold nothing that matters, so starting one again is always right. What is wanted is a pure function of the
configuration and the shard registry; the rest is a loop around it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.lake_appender_actor import LakeAppenderActor
from actors.shard_writer_actor import ShardWriterActor
from actors.spreading import Move, move_of
from actors.stack import Stack
from cluster.config import Settings
from cluster.config_fields import WITH_SECRETS
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.supervisor")
NAMESPACE = "intelgraph"
_LOOK_S, _ANSWER_S = 1.0, 10.0
_SILENT_LOOKS, _STARTING_LOOKS = 3, 18
"""So many looks without an answer, and an actor is replaced; one that never answered may still be starting, which is
slow on a busy machine: ended too soon it would never come up."""
_FIRST_MOVE_S, _MOVE_S, _SETTLE_S, _SHUNNED_S = 60.0, 15.0, 60.0, 600.0
"""Until the first move: what has just begun shows what waited for the start, while hosts join one after the other.
Between two moves: a host that comes and goes is not followed at once. An actor that is not ready so long after its
move goes back, and for a while nothing is moved to that host: it may lack what others have."""


@dataclass(frozen=True)
class Wanted:
    """One actor that has to be there.

    Args:
        name: unique; what it does and for whom. Shown in the Ray dashboard.
        make: the class, undecorated, and its arguments.
        roams: it may run on any host: what it works with is reached over the network.
        moves: so may it be ended at any time, and started on another host.
    """

    name: str
    make: type
    arguments: tuple[Any, ...]
    roams: bool = False
    moves: bool = False


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as a dict that another process can validate, secrets included; the state directory is made absolute."""
    return {**settings.model_dump(mode="json", context=WITH_SECRETS), "state_dir": str(settings.state_dir.resolve())}


def wanted(settings: Settings, shard_ids: list[str]) -> list[Wanted]:
    """Every actor that has to run for these shards."""
    config = plain(settings)
    roam = settings.ray.actors == "spread"
    writers = [Wanted(f"shard-writer:{shard}", ShardWriterActor, (config, shard), roam, roam) for shard in shard_ids]
    lake = [Wanted("lake-appender", LakeAppenderActor, (config,))] if settings.lake.enabled else []
    return [*lake, *writers]


def start_actor(actor: Wanted, host: str | None = None) -> Any:
    """The actor of this name, started if it is not there. Safe to call twice.

    Args:
        host: Ray's id of the one where it should run, as long as that is there; None: any.
    """
    options: dict[str, Any] = {
        "name": actor.name, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached",
        "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 4, "num_cpus": 0,
    }  # fmt: skip
    if host is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(host, soft=True)
    elif actor.roams:
        options["scheduling_strategy"] = "SPREAD"
    else:  # embedded stores are reached through sockets of that host, the lake's catalog and files to load lie there
        options["resources"] = {"node:__internal_head__": 0.001}
    return ray.remote(actor.make).options(**options).remote(*actor.arguments)


class Supervisor:
    """Looks at every wanted actor once a second. For one thread; `statuses` may be read by others."""

    def __init__(
        self, stack: Stack, extra: Callable[[], list[Wanted]] = list, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stack, self._extra, self._clock = stack, extra, clock
        self._handles: dict[str, Any] = {}
        self._silent: dict[str, int] = {}
        self._answered: set[str] = set()
        self._to: dict[str, str] = {}
        self._moved_at = clock() + _FIRST_MOVE_S - _MOVE_S
        self._moved: tuple[Move, str] | None = None
        """The last move, and from where, until it has settled."""
        self._shunned: dict[str, float] = {}
        """Until when nothing is moved to a host."""
        self.statuses: Mapping[str, dict[str, Any]] = {}

    def ensure(self) -> None:
        """Start what is missing, end what is wanted no longer, replace what is silent. Safe to call at any time."""
        shard_ids = [s.id for s in self._stack.control.shards.list() if s.role == "primary" and s.state != "down"]
        owners = set(self._stack.current_map().shards)
        actors = wanted(self._stack.settings, [s for s in shard_ids if s in owners]) + self._extra()
        for actor in actors:
            if actor.name not in self._handles:
                self._handles[actor.name] = start_actor(actor, self._to.get(actor.name))
        for name in self._handles.keys() - {actor.name for actor in actors}:
            LOG.info("actor_ended", actor=name)  # a shard was drained: its writer has nothing to write
            self._end(name)
        self._look()
        self._even_out([actor.name for actor in actors if actor.moves])

    def _even_out(self, names: list[str]) -> None:
        """End one that another host has fewer of; the next look starts it there.

        Hosts join after the first one has started everything, and come back after they have died.
        """
        now = self._clock()
        if now < self._moved_at + _MOVE_S or not names:
            return
        ready = {name for name in names if self.statuses.get(name, {}).get("ready")}
        self._settle(now, ready)
        if len(ready) < len(names):
            return  # one of them is being started, or catches up: that would begin anew
        self._shunned = {host: until for host, until in self._shunned.items() if until > now}
        homes = {name: self.statuses[name]["node"] for name in names}
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        move = move_of(homes, alive - self._shunned.keys())
        if move is not None:
            self._moved = move, homes[move.actor]
            self._move(move)

    def _settle(self, now: float, ready: set[str]) -> None:
        """A move that went well is forgotten; one that did not is taken back."""
        if self._moved is None:
            return
        move, home = self._moved
        if move.actor not in ready and now < self._moved_at + _SETTLE_S:
            return
        self._moved = None
        self._to.pop(move.actor, None)
        if move.actor not in ready and move.actor in self._handles:
            self._shunned[move.to] = now + _SHUNNED_S
            self._move(Move(move.actor, home))

    def _move(self, move: Move) -> None:
        LOG.info("actor_moves", actor=move.actor, host=move.to)
        self._to[move.actor], self._moved_at = move.to, self._clock()
        self._end(move.actor)

    def _end(self, name: str) -> None:
        """Let it finish what it has under way, then end it."""
        handle = self._handles.pop(name)
        ray.wait([handle.stop.remote()], timeout=_ANSWER_S)
        ray.kill(handle, no_restart=True)
        self._silent.pop(name, None)
        self._answered.discard(name)
        self.statuses = {other: status for other, status in self.statuses.items() if other != name}

    def _look(self) -> None:
        asked = {name: handle.status.remote() for name, handle in self._handles.items()}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        statuses: dict[str, dict[str, Any]] = {}
        for name, answer in asked.items():
            try:
                statuses[name] = ray.get(answer, timeout=0.1)
                if statuses[name].get("ended"):  # whoever told it to, died before it could start it again
                    statuses[name] |= {"ready": False}
                    self._replace(name)
                    continue
                self._silent.pop(name, None)
                self._answered.add(name)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                statuses[name] = {"state": "silent", "reason": type(error).__name__}
                self._replace_if_silent(name)
        self.statuses = statuses

    def _replace_if_silent(self, name: str) -> None:
        self._silent[name] = self._silent.get(name, 0) + 1
        if self._silent[name] >= (_SILENT_LOOKS if name in self._answered else _STARTING_LOOKS):
            self._replace(name)

    def _replace(self, name: str) -> None:
        """End it; the next look starts another."""
        LOG.warning("actor_replaced", actor=name)
        self._answered.discard(name)
        self._to.pop(name, None)
        self._silent.pop(name, None)
        ray.kill(self._handles.pop(name), no_restart=True)

    def run(self, stopping: threading.Event) -> None:
        """`ensure` once a second until `stopping` is set."""
        while not stopping.is_set():
            try:
                self.ensure()
            except Exception as error:  # a supervisor that dies supervises nothing: say it and look again
                LOG.error("supervisor_look_failed", error)
            stopping.wait(_LOOK_S)

    def stop(self) -> None:
        """Let every actor finish what it has under way, then end it."""
        ending = [handle.stop.remote() for handle in self._handles.values()]
        ray.wait(ending, num_returns=len(ending), timeout=60.0)
        for handle in self._handles.values():
            ray.kill(handle, no_restart=True)
        self._handles.clear()
