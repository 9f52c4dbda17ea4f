"""The node: the one process that `intelgraph up` starts on a machine. It starts everything else and watches it.

    servers (log, cache, shards) → control store → Ray → supervisor's actors and API → ready

Its servers outlive its crash and are adopted by the next one. It stops in order on SIGTERM: API, actors, Ray,
shards (each saves itself), cache, log.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from actors import external_shards
from actors.control_recovery import keep, make_whole, seal
from actors.mending import mend
from actors.repartition import change_number
from actors.stack import Stack
from cluster import config
from cluster.config import Settings
from cluster.embedded import HeldPorts, Port, Role, Running, ServerSpec, Watched, ensure, stack, stop, watch
from cluster.embedded.passwords import write_private
from cluster.embedded.paths import private_folder, ray_folder
from cluster.errors import Conflict, IntelGraphError, Unavailable
from cluster.telemetry import configure
from cluster.telemetry.logfile import set_aside
from cluster.telemetry.logs import NODE_LOG, Log
from serve_apps.before_serving import check_before_serving_again, raise_epoch_before_serving
from serve_apps.node_state import NodeState, node_file, ray_environment
from serve_apps.node_tenure import NodeTenure

LOG = Log("intelgraph.node")
T = TypeVar("T")
_LOCK_S, _NEW_SHARDS_S, _LOG_LOOK_S = 1.0, 1.0, 5.0
_RAY_DASHBOARD_PORT = 8265
_OBJECT_STORE_BYTES = 1 << 30


def _locked_within(descriptor: int, seconds: float) -> bool:
    """Whether the lock was free within some time: whoever asks for the node's state holds it for an instant."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


class Node:
    """Starts, watches and stops everything on this machine."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state_dir = private_folder(settings.state_dir.resolve())
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._servers: dict[str, Watched] = {}
        self._external: set[str] = set()
        self._log_name = ""
        self._opened = Stack(settings)
        self._state = NodeState(os.getpid(), started=time.time())
        self._ending = ExitStack()
        self._tenure: NodeTenure | None = None
        self._ports = HeldPorts()
        self._ending.callback(self._ports.close)

    def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop.

        Raises:
            Conflict: another node runs on this state directory, or works on this control store.
        """
        lock = self._lock()
        self._heed_signals()
        try:
            self._start()
            self._heed_signals()  # Ray has set handlers of its own
            self._stopping.wait()
            if self._tenure and self._tenure.lost_to:
                raise self._tenure.lost_to
        except BaseException as error:
            self._say("failed", notes=(*self._state.notes, str(error)))
            raise
        finally:
            self._stop()
            if self._state.phase != "failed":
                node_file(self.state_dir).unlink(missing_ok=True)
            os.close(lock)

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())

    def _lock(self) -> int:
        descriptor = os.open(self.state_dir / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked_within(descriptor, _LOCK_S):
            os.close(descriptor)
            raise Conflict(f"IntelGraph is up already in {self.state_dir}: `intelgraph status` tells more")
        return descriptor

    def _say(self, phase: str, **changes: Any) -> None:
        self._state.phase = phase
        for name, value in changes.items():
            setattr(self._state, name, value)
        self._state.seconds = time.time() - self._state.started
        write_private(node_file(self.state_dir), json.dumps(asdict(self._state)))
        LOG.info("node_phase", phase=phase)

    def _start(self) -> None:
        self._thread("node-log", self._keep_log_small)
        self._say("servers")
        self._start_servers()
        self._say("Ray")
        self._start_ray()
        self._say("actors and API")
        address, port = self._start_actors_and_api().result()
        self._say("ready", api=address, notes=(*self._state.notes, *((port.note,) if port.note else ())))

    def _keep_log_small(self) -> None:
        """The actors' lines are in it too; they see by themselves that it was set aside."""
        limits, path = self.settings.node, self.state_dir / NODE_LOG
        while True:
            try:
                if set_aside(path, limits.log_bytes, limits.log_files):
                    LOG.info("node_log_set_aside", limit_bytes=limits.log_bytes)
            except OSError as error:
                LOG.error("node_log_not_set_aside", error)
            if self._stopping.wait(_LOG_LOOK_S):
                return

    def _start_servers(self) -> None:
        self._ending.callback(self._stop_servers)
        if self.settings.log.kind == "redis":
            log_spec = stack(self.state_dir, 0)["log"]
            self._servers["log"] = Watched(log_spec, ensure(log_spec))
        self._tenure = NodeTenure(self._opened.control.database, self._stopping)
        self._ending.callback(self._opened.control.database.end_tenure)
        self._tenure.take()
        self._thread("tenure", self._tenure.keep)
        if note := make_whole(self._opened).note:
            self._say("servers", notes=(*self._state.notes, note))
        self._ending.callback(self._seal)
        self._thread("control-log", lambda: keep(self._opened, self._stopping))
        embedded = self._opened.register_embedded()
        specs = self._specs()
        for name in [name for name in specs if name not in self._servers]:
            running = ensure(specs[name], raise_epoch_before_serving(self._opened, specs[name]))
            self._servers[name] = Watched(specs[name], running)
        change_number(self._opened)
        if (mended := mend(self._opened)) is not None:
            self._say("servers", notes=(*self._state.notes, mended.note))
        positions = self._opened.control.positions
        with closing(self._opened.open_log()) as log:
            self._log_name = log.identity.name
        self._opened.publish_first_map([*embedded, *external_shards.register_first(self._opened)])
        for shard_id in set(self._opened.embedded_shards()) - specs.keys():
            positions.remove(shard_id)  # drained: it holds the log no longer
        for shard_id in self._opened.external_shards():
            self._opened.control.shards.raise_epoch(shard_id)  # what became of it while we were down, nobody has seen
        self._keep_external()
        for name in specs:
            self._keep(name)
        self._thread("new-shards", self._start_new_shards)

    def _seal(self) -> None:
        try:
            self._opened.control.database.take_tenure()  # else it is another node's, and that one's to seal
        except IntelGraphError as error:
            LOG.error("control_store_not_sealed", error)
            return
        seal(self._opened)

    def _keep(self, name: str) -> None:
        """Watch a server, and save it while it changes if it is a shard."""
        one = {name: self._servers[name]}
        before = partial(check_before_serving_again, self._opened)
        self._thread(f"watch-{name}", lambda: watch(one, before, _restarted, self._stopping))
        if one[name].spec.role is Role.SHARD:
            self._thread(f"checkpoint-{name}", partial(self._checkpoint, name))

    def _specs(self) -> dict[str, ServerSpec]:
        """Every server that has to run: the log unless it is elsewhere, cache, and the shards but those drained."""
        known, current = self._opened.embedded_shards(), self._opened.control.shard_maps.current()
        owners = set(current.shards) if current else set[str]()
        without = {s.id for s in self._opened.control.shards.list() if s.state == "draining" and s.id not in owners}
        if self.settings.log.kind != "redis":
            without.add("log")
        return {name: spec for name, spec in stack(self.state_dir, len(known)).items() if name not in without}

    def _start_new_shards(self) -> None:
        """Start servers of shards that were registered while the node is up."""
        while not self._stopping.wait(_NEW_SHARDS_S):
            try:
                self._keep_external()
                specs = self._specs()
                for name in specs.keys() - self._servers.keys():
                    raising = raise_epoch_before_serving(self._opened, specs[name])
                    running = ensure(specs[name], raising)
                    if self._stopping.is_set():
                        stop(running)
                        return
                    self._servers[name] = Watched(specs[name], running)
                    LOG.info("shard_added", shard=name)
                    self._keep(name)
            except (
                IntelGraphError,
                OSError,
            ) as error:  # a thread that dies starts no shard ever after
                LOG.error("new_shard_failed", error)

    def _keep_external(self) -> None:
        for shard_id in set(self._opened.external_shards()) - self._external:
            keeper = external_shards.Keeper(self._opened, shard_id, self._log_name)
            self._external.add(shard_id)
            self._thread(f"keep-{shard_id}", partial(keeper.run, self._stopping))

    def _stop_servers(self) -> None:
        for server in reversed(list(self._servers.values())):
            if server.running is not None:
                with suppress(IntelGraphError):
                    stop(server.running)

    def _checkpoint(self, name: str) -> None:
        from actors.checkpoints import CheckpointRounds

        rounds, pause_s = CheckpointRounds(name, self._opened), self.settings.shards.checkpoint_s
        while not self._stopping.wait(pause_s):
            running = self._servers[name].running
            pause_s = rounds.turn(running) if running is not None else self.settings.shards.checkpoint_s
        rounds.close()

    def _start_ray(self) -> None:
        from serve_apps import haproxy

        joined = bool(self.settings.ray.address)
        os.environ.update(ray_environment(self.state_dir, several_hosts=joined))
        os.environ.update(haproxy.environment(self.settings, self._ports.take))
        os.environ.setdefault("POLARS_MAX_THREADS", "1")  # Ray shares the cores out, by actors and tasks
        self._ending.callback(haproxy.forget_files, self.state_dir)
        import ray

        common: dict[str, Any] = {"namespace": "intelgraph", "log_to_driver": False}
        notes = self._state.notes
        if joined:  # the one that `ray up` has started
            context = ray.init(address=self.settings.ray.address, **common)
            dashboard = str(context.dashboard_url or "")
        else:
            wanted = self.settings.ray.dashboard_port
            # Ray searches from its default port by itself, and leaves no gap in which another program can take it.
            number = None if wanted == _RAY_DASHBOARD_PORT else self._ports.take(wanted).number
            context = ray.init(
                num_cpus=max(2, os.cpu_count() or 2), include_dashboard=True, dashboard_host="127.0.0.1",
                dashboard_port=number, object_store_memory=_OBJECT_STORE_BYTES, _node_ip_address="127.0.0.1",
                _temp_dir=str(ray_folder(self.state_dir)), **common,
            )  # fmt: skip
            dashboard = str(context.dashboard_url)
            note = Port(int(dashboard.rpartition(":")[2]), wanted).note
            notes = (*self._state.notes, *((note,) if note else ()))
        self._ending.callback(ray.shutdown)
        address = str(ray.get_runtime_context().gcs_address)
        self._say("Ray", dashboard=f"http://{dashboard}", ray_address=address, notes=notes)

    def _start_actors_and_api(self) -> Future[tuple[str, Port]]:
        """Both at once: they wait for processes to start, and neither needs the other to do so.

        Returns:
            the API's address and port, once it answers.
        """
        from actors.canary import Canaries
        from actors.ingest_actor import wanted_workers
        from actors.stream_worker_actor import stream_workers, wanted_stream_workers, watch_streams
        from actors.supervisor import Supervisor
        from serve_apps.serve import stop_api

        workers = stream_workers(self._opened, lambda: supervisor.statuses)
        supervisor = Supervisor(
            self._opened, lambda: wanted_workers(self.settings) + wanted_stream_workers(self._opened, workers)
        )
        self._ending.callback(supervisor.stop)
        self._ending.callback(stop_api)
        api = _beside(self._start_api)
        supervisor.ensure()
        self._thread("supervisor", lambda: supervisor.run(self._stopping))
        self._thread("streams", lambda: watch_streams(self._opened, workers, self._stopping))
        self._thread("canaries", lambda: Canaries(self._opened).run(self._stopping))
        return api

    def _start_api(self) -> tuple[str, Port]:
        import ray

        from actors.supervisor import plain
        from serve_apps.serve import start_api

        port = self._ports.take(self.settings.query.port)
        try:
            return start_api(Settings.model_validate(plain(self.settings)), port.number), port
        except (ray.exceptions.RayError, RuntimeError, TimeoutError) as error:
            LOG.error("api_start_failed", error)
            raise Unavailable(
                "Ray Serve did not start the API: if this machine is very busy, try again later"
            ) from error

    def _thread(self, name: str, run: Any) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=30)
        self._ending.close()


def _beside(call: Callable[[], T]) -> Future[T]:
    """Runs a call in a thread that nobody waits for when something else fails: what stops the rest ends it, too."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # whoever waits for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name=call.__name__, daemon=True).start()
    return future


def _restarted(running: Running) -> None:
    LOG.warning("server_restarted", server=running.spec.name, pid=running.pid)


def main() -> int:
    """Entry point of the node's process."""
    configure()
    try:
        Node(config.load()).run()
    except IntelGraphError as error:
        LOG.error("node_failed", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
