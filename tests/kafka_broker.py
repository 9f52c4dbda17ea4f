"""A real Kafka broker on loopback, alone and small (KRaft, broker and controller in one process).

INTELGRAPH_TEST_KAFKA_HOME names a folder whose lib/ holds the jars of `kafka_2.13` and all that it needs.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

HOME = "INTELGRAPH_TEST_KAFKA_HOME"

_HEAP = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:CICompilerCount=1")
_START_S, _STOP_S = 90.0, 30.0
_STARTED = "Kafka Server started"


def classpath() -> str | None:
    """The broker's jars; None where there are none."""
    home = os.environ.get(HOME, "")
    return f"{home}/lib/*" if home and list(Path(home).glob("lib/kafka_2.13-*.jar")) else None


def why_not() -> str | None:
    """Why no broker can be started here, for a skip; None if one can be."""
    if shutil.which("java") is None:
        return "no Java is installed, which a Kafka broker needs"
    if classpath() is None:
        return f"no Kafka: {HOME} has to name a folder with its jars in lib/"
    return None


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class KafkaBroker:
    """One broker with files and ports of its own; `start` after `kill` or `stop` goes on with the same ones.

    Args:
        folder: for its files; made.
        protocol: of its listener: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        options: more lines of its server.properties.
    """

    def __init__(self, folder: Path, protocol: str = "PLAINTEXT", options: Mapping[str, str] | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        controller = free_port()
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"CLIENTS://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"CLIENTS://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"CLIENTS:{protocol},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENTS",
            "log.dirs": str(folder / "data"),
            "offsets.topic.replication.factor": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "2000",  # or a broker that was killed waits for its old session to end
            "log.initial.task.delay.ms": "500",
            "log.retention.check.interval.ms": "500",
            "log.segment.delete.delay.ms": "100",
            **(options or {}),
        }
        (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*self._java("kafka.tools.StorageTool"), "format", "-t", cluster, "-c", self._properties]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def _properties(self) -> str:
        return str(self.folder / "server.properties")

    def _java(self, main: str) -> list[str]:
        logged = "-Dorg.slf4j.simpleLogger.logFile=System.out"
        low = ["nice", "-n", "19"]
        return [*low, "java", *_HEAP, logged, "-cp", classpath() or "", main]

    def start(self) -> None:
        """Starts it and waits until it serves."""
        log = self.folder / "out.log"
        with log.open("wb") as out:
            command = [*self._java("kafka.Kafka"), self._properties]
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        until = time.monotonic() + _START_S
        while _STARTED not in log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"the broker does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL. Safe to call twice."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end. Safe to call twice."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(_STOP_S)
        self._process = None
