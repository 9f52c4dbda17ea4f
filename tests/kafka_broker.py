"""Real Kafka brokers on loopback, small ones (KRaft); the first of a cluster is its controller, too.

For tests that kill brokers, want several, or listen in ways that the one of `services/` does not.
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from services.machine import java

USER, PASSWORD = "intel", "right-and-secret"

_FIXED = {
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENTS",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "5000",  # a broker that was killed waits for its old session to end
    "log.index.size.max.bytes": "1048576",
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
    "log.segment.delete.delay.ms": "100",
}
_HEAP = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:CICompilerCount=1")
_START_S, _STOP_S = 90.0, 30.0
_STARTED = "Kafka Server started"


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _listed(items: Mapping[str, str], between: str) -> str:
    return ",".join(f"{name}{between}{value}" for name, value in items.items())


class KafkaBroker:
    """One broker with files and ports of its own; `start` after `kill` or `stop` goes on with the same ones.

    Args:
        jars: folder of Kafka's.
        folder: for its files; made.
        secured: it listens with passwords, too, and with passwords over TLS.
        first: the cluster's first broker, which has to run before this one can; none: it is the first itself.
        options: more lines of its server.properties.

    Attributes:
        bootstrap: where it listens, without password or TLS.
        proxied_port, proxy_port: where it listens for a proxy, and where it tells clients of it that the proxy is.
        locked, sealed: where it wants `USER` and `PASSWORD` (PLAIN or SCRAM-SHA-512); `sealed` with TLS.
        ca_file: vouches for `sealed`.
    """

    def __init__(
        self,
        jars: Path,
        folder: Path,
        secured: bool = False,
        first: KafkaBroker | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self._jars, self._keytool = folder, jars, str(Path(java()).with_name("keytool"))
        clients, self.proxied_port, self.proxy_port, controller, locked, sealed = (free_port() for _ in range(6))
        self._cluster = first._cluster if first else base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._controller = first._controller if first else f"127.0.0.1:{controller}"
        self._brokers = first._brokers if first else itertools.count(1)
        self.node = next(self._brokers)
        self.bootstrap, self.locked, self.sealed = (f"127.0.0.1:{port}" for port in (clients, locked, sealed))
        self.ca_file = folder / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        listeners = {"CLIENTS": self.bootstrap, "PROXIED": f"127.0.0.1:{self.proxied_port}"}
        protocols = dict.fromkeys(("CLIENTS", "PROXIED", "CONTROLLER"), "PLAINTEXT")
        if secured:
            listeners |= {"LOCKED": self.locked, "SEALED": self.sealed}
            protocols |= {"LOCKED": "SASL_PLAINTEXT", "SEALED": "SASL_SSL"}
        advertised = listeners | {"PROXIED": f"127.0.0.1:{self.proxy_port}"}
        own = {} if first else {"CONTROLLER": self._controller}
        properties = {
            **_FIXED,
            "process.roles": "broker" if first else "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.voters": f"1@{self._controller}",
            "listeners": _listed(listeners | own, "://"),
            "advertised.listeners": _listed(advertised, "://"),
            "listener.security.protocol.map": _listed(protocols, ":"),
            "log.dirs": str(folder / "data"),
            **(self._secrets() if secured else {}),
            **(options or {}),
        }
        (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = f"--cluster-id={self._cluster}"  # in one word: it may begin with a hyphen
        command = [*self._java("kafka.tools.StorageTool"), "format", cluster, "-c", self._properties]
        if secured:
            command += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _secrets(self) -> dict[str, str]:
        """Users, a key and its certificate."""
        store = ["-alias", "broker", "-keystore", str(self.folder / "key.p12"), "-storepass", PASSWORD]
        key = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=127.0.0.1", "-ext", "SAN=IP:127.0.0.1"]
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([self._keytool, *key, "-storetype", "PKCS12", *store], **quiet)
        subprocess.run([self._keytool, "-exportcert", "-rfc", "-file", str(self.ca_file), *store], **quiet)
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        found = {"ssl.keystore.location": str(self.folder / "key.p12"), "ssl.keystore.password": PASSWORD}
        for listener in ("locked", "sealed"):
            found[f"listener.name.{listener}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
            found[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
            found[f"listener.name.{listener}.scram-sha-512.sasl.jaas.config"] = scram
        return found

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended."""
        return self._process is not None

    @property
    def _properties(self) -> str:
        return str(self.folder / "server.properties")

    def _java(self, main: str) -> list[str]:
        logged = "-Dorg.slf4j.simpleLogger.logFile=System.out"
        return [java(), *_HEAP, logged, "-cp", f"{self._jars}/*", main]

    def start(self) -> None:
        """Starts it and waits until it serves."""
        log = self.folder / "out.log"
        with log.open("wb") as out:
            command = [*self._java("kafka.Kafka"), self._properties]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT)
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

    def pause(self) -> None:
        """It stands still, with its connections open, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(_STOP_S)
        self._process = None
