"""Kafka, one KRaft node: a plain listener on loopback, and one with TLS and SASL beside it."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from services import certificates
from services.artifacts import fetch_jars
from services.launching import listens, put, settings
from services.machine import java
from services.ports import host_for, port_for
from services.spec import Launch, NotInstallable, Running, Service

VERSION = "4.3.1"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")
USER = "intelgraph"
QUIET = ("-Dorg.slf4j.simpleLogger.logFile=System.out", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def install(artifacts: Path) -> None:
    """Fetch the broker's jars."""
    java()
    fetch_jars("kafka", COORDINATES, artifacts / "kafka")


def launch(own: Path, artifacts: Path, _: Mapping[str, Running]) -> Launch:
    """A broker on this folder; its storage is formatted at the first start."""
    plain, secure, controller = (
        port_for(own, 9092 + 100 * n, name) for n, name in enumerate(("plain", "sasl", "raft"))
    )
    host, password = host_for(own), put(own / "password", secrets.token_urlsafe(24))
    authority = certificates.make(own / "certificates", "broker", key="key.pem", certificate="crt.pem", host=host)
    chain = own / "certificates" / "broker" / "keystore.pem"
    put(chain, "".join((own / "certificates" / "broker" / name).read_text() for name in ("key.pem", "crt.pem")))
    jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    conf = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAIN://127.0.0.1:{plain},SECURE://{host}:{secure},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAIN://127.0.0.1:{plain},SECURE://{host}:{secure}",
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(chain),
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": f'{jaas} user_{USER}="{password}";',
        "log.dirs": str(own / "data"),
        "num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # after SIGKILL it would wait for its own session to end otherwise
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2000",
    }
    settings(own / "server.properties", conf)
    jars = f"{artifacts / 'kafka'}/*"
    if not (own / "data" / "meta.properties").is_file():
        _format(jars, own)
    heap = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return Launch(
        command=[java(), *heap, *QUIET, "-cp", jars, "kafka.Kafka", str(own / "server.properties")],
        address=f"127.0.0.1:{plain}",
        details={"secure": f"{host}:{secure}", "user": USER, "password": password, "ca": str(authority)},
        answers=lambda: listens(plain) and listens(secure, host),
    )


def _format(jars: str, own: Path) -> None:
    tool = [java(), "-XX:TieredStopAtLevel=1", "-cp", jars, "kafka.tools.StorageTool"]
    id = subprocess.run([*tool, "random-uuid"], capture_output=True, text=True, check=False).stdout.strip()
    command = [*tool, "format", "-t", id, "-c", str(own / "server.properties")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstallable(f"Kafka could not format its storage: {(done.stdout + done.stderr).strip()[-500:]}")


SERVICES = (Service("kafka", "Kafka: one KRaft node (plain, and SASL over TLS)", install, launch),)
