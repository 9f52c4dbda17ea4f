"""The Ray shell of stream readers: an actor with a thread for each stream that it has partitions of.

    supervisor's shares → assign({stream: partitions}) → StreamReader per stream → event log

Nothing that matters lives here: an actor that starts again is given its share again, and asks the control store where
to go on.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import ray

from actors.priority import step_aside
from actors.stack import Stack
from actors.stream_reader import StreamReader
from actors.stream_watch import StreamWatch
from actors.supervisor import NAMESPACE, Wanted, plain
from cluster.config import Settings
from cluster.stores.kafka_stream import KafkaStream
from cluster.telemetry import metrics

_STOP_S, _ANSWER_S = 30.0, 2.0


class StreamWorkerActor:
    """`ray.remote` is put around it by the supervisor. Every method is safe to call twice."""

    def __init__(self, settings: dict[str, Any], number: int) -> None:
        step_aside()
        gc.freeze()
        gc.set_threshold(200_000, 20, 50)  # batches of tuples without cycles: the collector only walks them
        self._stack, self._name = Stack(Settings.model_validate(settings)), worker_name(number)
        self._stack.log_as(self._name)
        streams = self._stack.settings.streams
        self._topic = KafkaStream(streams.kafka, streams.timeout_s, streams.read_ahead_bytes, streams.batch_bytes)
        self._readers: dict[str, tuple[StreamReader, threading.Thread]] = {}
        self._lock = threading.Lock()

    def status(self) -> dict[str, Any]:
        """How it is doing: the worst of its readers, and each of them."""
        with self._lock:
            readers = [(asdict(reader.status), thread.is_alive()) for reader, thread in self._readers.values()]
        states = [found["state"] for found, _ in readers]
        state = next((s for s in ("stopped", "waiting", "starting") if s in states), "running" if states else "idle")
        reason = next((found["reason"] for found, _ in readers if found["state"] == state and found["reason"]), "")
        alive = all(alive for _, alive in readers)
        return {"state": state, "reason": reason, "pid": os.getpid(), "alive": alive,
                "streams": [found for found, _ in readers]}  # fmt: skip

    def metrics(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        return metrics.exposition()

    def assign(self, shares: Mapping[str, Collection[int]]) -> dict[str, str]:
        """What to read from now on: partitions by stream; what is not named is given back after the batch at hand.

        Returns:
            what readers wait for, by stream.
        """
        with self._lock:
            for stream, partitions in shares.items():
                if partitions and (stream not in self._readers or not self._readers[stream][1].is_alive()):
                    self._readers[stream] = self._started(stream)
            for stream, (reader, _) in self._readers.items():
                reader.assign(shares.get(stream, ()))
            for stream in [name for name in self._readers if not shares.get(name)]:
                self._readers.pop(stream)[0].stop()
            return {stream: why for stream, (reader, _) in self._readers.items() if (why := reader.waits_for)}

    def _started(self, stream: str) -> tuple[StreamReader, threading.Thread]:
        stack = self._stack
        reader = StreamReader(stack.control, stack.settings, stack.open_log, self._topic, stream, self._name)
        thread = threading.Thread(target=reader.run, name=f"stream-{stream}", daemon=True)
        thread.start()
        return reader, thread

    def stop(self) -> None:
        """Bring the batches at hand to their end, and give the leases back."""
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
        for reader, _ in readers:
            reader.stop()
        for _, thread in readers:
            thread.join(_STOP_S)
        self._topic.close()


def worker_name(number: int) -> str:
    """The actor's name."""
    return f"stream-worker:{number}"


def wanted_stream_workers(stack: Stack) -> list[Wanted]:
    """The stream workers that have to run: none before there is a stream."""
    if not stack.control.streams.list():
        return []
    config = plain(stack.settings)
    return [Wanted(name, StreamWorkerActor, (config, n)) for n, name in enumerate(_workers(stack.settings))]


def watch_streams(stack: Stack, stopping: threading.Event) -> None:
    """Look at the streams' topics and share the partitions out, until `stopping` is set. For a thread of its own."""
    settings = stack.settings.streams
    topics = KafkaStream(settings.kafka, settings.timeout_s, settings.read_ahead_bytes, settings.batch_bytes)
    try:
        StreamWatch(stack.control, topics.look, _workers(stack.settings), _assign).run(settings.look_s, stopping)
    finally:
        topics.close()


def _workers(settings: Settings) -> list[str]:
    return [worker_name(n) for n in range(settings.streams.workers)]


def _assign(worker: str, shares: Mapping[str, Collection[int]]) -> Mapping[str, str]:
    try:
        actor: Any = ray.get_actor(worker, namespace=NAMESPACE)
        waiting: dict[str, str] = ray.get(actor.assign.remote(shares), timeout=_ANSWER_S)
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return {}  # it is not there yet, or starts again: it is asked again at the next look
    return waiting
