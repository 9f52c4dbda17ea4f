"""Kafka Connect, standalone, with Debezium's PostgreSQL connector: connectors are made over its HTTP API."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from services.artifacts import fetch_jars
from services.kafka import QUIET, VERSION
from services.launching import settings
from services.machine import java
from services.ports import port_for
from services.spec import Launch, Running, Service

COORDINATES = tuple(f"org.apache.kafka:connect-{name}:{VERSION}" for name in ("runtime", "json"))
LOGGING = ("org.slf4j:slf4j-simple:1.7.36",)
DEBEZIUM = ("io.debezium:debezium-connector-postgres:3.7.0.Final",)
AVRO = ("io.apicurio:apicurio-registry-utils-converter:2.6.13.Final",)
_JSON = "org.apache.kafka.connect.json.JsonConverter"


def install(artifacts: Path) -> None:
    """Fetch the worker's jars and the plugins'."""
    java()
    fetch_jars("connect", (*COORDINATES, *LOGGING), artifacts / "connect")
    fetch_jars("debezium", DEBEZIUM, artifacts / "plugins" / "debezium")
    fetch_jars("avro", AVRO, artifacts / "plugins" / "avro")


def launch(own: Path, artifacts: Path, needs: Mapping[str, Running]) -> Launch:
    """A worker beside the broker; it forgets its connectors when it ends, and keeps their offsets."""
    port = port_for(own, 8083)
    conf = {
        "bootstrap.servers": needs["kafka"].address,
        "key.converter": _JSON,
        "value.converter": _JSON,
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        "offset.storage.file.filename": str(own / "offsets"),
        "offset.flush.interval.ms": "1000",
        "plugin.path": str(artifacts / "plugins"),
        "plugin.discovery": "hybrid_warn",
        "listeners": f"HTTP://127.0.0.1:{port}",
    }
    settings(own / "worker.properties", conf)
    heap = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    program = "org.apache.kafka.connect.cli.ConnectStandalone"
    jars = f"{artifacts / 'connect'}/*"
    return Launch(
        command=[java(), *heap, *QUIET, "-cp", jars, program, str(own / "worker.properties")],
        address=f"http://127.0.0.1:{port}",
        answers=lambda: answers(f"http://127.0.0.1:{port}/connectors"),
    )


def answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - an address of ours
            return bool(response.status < 300)
    except (urllib.error.URLError, OSError):
        return False


SERVICES = (Service("connect", "Kafka Connect with Debezium for PostgreSQL", install, launch, needs=("kafka",)),)
