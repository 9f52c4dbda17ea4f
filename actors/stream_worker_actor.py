"""The Ray shell of stream readers: an actor with a thread for each stream that it has partitions of.

    watch's shares → assign({stream: partitions}) → StreamReader per stream → event log
    one too many   → drain() → the batch at hand → nothing held: it may end

Nothing that matters lives here: an actor that starts again is given its share again, and asks the control store where
to go on.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict
from math import inf
from types import MappingProxyType
from typing import Any

import ray

from actors.ahead import Ahead
from actors.cpu_meter import CpuMeter
from actors.priority import step_aside
from actors.stack import Stack
from actors.stream_reader import StreamReader
from actors.stream_watch import StreamWatch
from actors.stream_workers import Statuses, StreamWorkers, worker_name
from actors.supervisor import NAMESPACE, Wanted, plain
from actors.workers_told import forget_workers
from cluster.config import Settings
from cluster.stores.kafka_stream import KafkaStream
from cluster.telemetry import metrics

_STOP_S, _ANSWER_S = 30.0, 2.0


class StreamWorkerActor:
    """`ray.remote` is put around it by the supervisor. Every method is safe to call twice."""

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        step_aside()
        gc.freeze()
        gc.set_threshold(200_000, 20, 50)  # batches of tuples without cycles: the collector only walks them
        self._stack, self._name = Stack(Settings.model_validate(settings)), name
        self._stack.log_as(self._name)
        streams = self._stack.settings.streams
        self._topic = KafkaStream(streams.kafka, streams.timeout_s, streams.read_ahead_bytes, streams.batch_bytes)
        self._ahead = Ahead(self._stack.control.shards.list, streams)
        self._readers: dict[str, tuple[StreamReader, threading.Thread]] = {}
        self._leaving: dict[str, threading.Thread] = {}
        self._lock, self._cpu, self._ended = threading.Lock(), CpuMeter(), False

    def status(self) -> dict[str, Any]:
        """How it is doing: the worst of its readers, and each of them; `cpu` is a share of a core, `host_cpu` of all
        of its host's `cores`, whoever computes there."""
        with self._lock:
            readers = [(asdict(reader.status), thread.is_alive()) for reader, thread in self._readers.values()]
            otherwise = "running" if readers else "draining" if self._holds() else "idle"
        states = [found["state"] for found, _ in readers]
        state = next((s for s in ("stopped", "waiting", "starting") if s in states), otherwise)
        reason = next((found["reason"] for found, _ in readers if found["state"] == state and found["reason"]), "")
        alive = all(alive for _, alive in readers)
        cpu = self._cpu.read()
        host = {"host": self._cpu.host_name, "host_cpu": cpu.host, "cores": os.cpu_count() or 1}
        return {"state": state, "reason": reason, "pid": os.getpid(), "alive": alive, "cpu": cpu.process, **host,
                "streams": [found for found, _ in readers]}  # fmt: skip

    def metrics(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        metrics.STREAM_WORKER_CPU.set(self._cpu.read().process)
        return metrics.exposition()

    def assign(
        self, shares: Mapping[str, Collection[int]], caps: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, str]:
        """What to read from now on: partitions by stream; what is not named is given back after the batch at hand.

        Args:
            caps: records a second at most, by stream.

        Returns:
            what readers wait for, by stream.
        """
        with self._lock:
            for stream, partitions in () if self._ended else shares.items():
                if partitions and not self._reads(stream):
                    self._readers[stream] = self._started(stream)
            for stream, (reader, _) in self._readers.items():
                reader.assign(shares.get(stream, ()), caps.get(stream, inf))
            for stream in [name for name in self._readers if not shares.get(name)]:
                reader, self._leaving[stream] = self._readers.pop(stream)
                reader.stop()
            return {stream: why for stream, (reader, _) in self._readers.items() if (why := reader.waits_for)}

    def _reads(self, stream: str) -> bool:
        """Whether a reader of this stream is at work: also one that was stopped and has a batch in its hands."""
        leaving = self._leaving.get(stream)
        reading = self._readers[stream][1] if stream in self._readers else None
        return any(thread is not None and thread.is_alive() for thread in (leaving, reading))

    def _holds(self) -> bool:
        self._leaving = {stream: thread for stream, thread in self._leaving.items() if thread.is_alive()}
        return bool(self._leaving or self._readers)

    def drain(self) -> bool:
        """Give everything back, each reader after the batch at hand; whether nothing is held any more."""
        self.assign({})
        with self._lock:
            return not self._holds()

    def _started(self, stream: str) -> tuple[StreamReader, threading.Thread]:
        stack = self._stack
        reader = StreamReader(
            stack.control, stack.settings, stack.open_log, self._topic, stream, self._name, ahead=self._ahead
        )
        thread = threading.Thread(target=reader.run, name=f"stream-{stream}", daemon=True)
        thread.start()
        return reader, thread

    def stop(self) -> None:
        """Bring the batches at hand to their end, and give the leases back; read nothing ever after."""
        self._ended = True
        self.assign({})
        with self._lock:
            leaving = list(self._leaving.values())
        for thread in leaving:
            thread.join(_STOP_S)
        self._topic.close()


class ActorWorkers:
    """`actors.stream_workers.Workers` as actors of the Ray that this process has joined."""

    def there(self) -> list[int]:
        """Numbers of those whose names Ray knows."""
        before = worker_name(0).rstrip("0")
        names = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True) if a["namespace"] == NAMESPACE]
        return [int(name.removeprefix(before)) for name in names if name.startswith(before)]

    def drain(self, name: str) -> bool:
        """Whether it has said that it holds nothing."""
        try:
            actor: Any = ray.get_actor(name, namespace=NAMESPACE)
            return bool(ray.get(actor.drain.remote(), timeout=_ANSWER_S))
        except ValueError:
            return True  # nobody has started it
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return False  # it starts again, or has much to do: it is asked again at the next look


def stream_workers(stack: Stack, statuses: Statuses) -> StreamWorkers:
    """The stream workers of this installation."""
    return StreamWorkers(stack.settings, statuses, ActorWorkers())


def wanted_stream_workers(stack: Stack, workers: StreamWorkers) -> list[Wanted]:
    """The stream workers that have to run: none before there is a stream."""
    if not stack.control.streams.list():
        return []
    config, roam = plain(stack.settings), stack.settings.ray.actors == "spread"
    return [Wanted(name, StreamWorkerActor, (config, name), roam) for name in workers.wanted()]


def watch_streams(stack: Stack, workers: StreamWorkers, stopping: threading.Event) -> None:
    """Look at the streams' topics and share the partitions out, until `stopping` is set. For a thread of its own."""
    settings = stack.settings.streams
    topics = KafkaStream(settings.kafka, settings.timeout_s, settings.read_ahead_bytes, settings.batch_bytes)
    try:
        StreamWatch(stack.control, topics.look, workers.look, _assign, pace=workers.pace).run(settings.look_s, stopping)
    finally:
        topics.close()
        forget_workers(stack.state_dir)


def _assign(worker: str, shares: Mapping[str, Collection[int]], caps: Mapping[str, float]) -> Mapping[str, str]:
    try:
        actor: Any = ray.get_actor(worker, namespace=NAMESPACE)
        waiting: dict[str, str] = ray.get(actor.assign.remote(shares, *[dict(caps)] * bool(caps)), timeout=_ANSWER_S)
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return {}  # it is not there yet, or starts again: it is asked again at the next look
    return waiting
