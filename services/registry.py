"""Apicurio Registry: a schema registry with the Confluent-compatible API; it keeps schemas while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.artifacts import fetch_archive
from services.connect import answers
from services.machine import java
from services.ports import port_for
from services.spec import Launch, Running, Service

COORDINATE = "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all"


def install(artifacts: Path) -> None:
    """Fetch and unpack the application."""
    java()
    fetch_archive("registry", COORDINATE, artifacts / "registry")


def launch(own: Path, artifacts: Path, _: Mapping[str, Running]) -> Launch:
    """A registry on a free port."""
    port, management = port_for(own, 8091), port_for(own, 9191, "management")
    root = f"http://127.0.0.1:{port}"
    jar = artifacts / "registry" / "content" / "quarkus-run.jar"
    options = {
        "http.host": "127.0.0.1",
        "http.port": port,
        "management.host": "127.0.0.1",
        "management.port": management,
    }
    properties = [f"-Dquarkus.{name}={value}" for name, value in options.items()]
    return Launch(
        command=[java(), "-Xmx384m", "-XX:TieredStopAtLevel=1", *properties, "-jar", str(jar)],
        address=f"{root}/apis/ccompat/v7",
        details={"native": f"{root}/apis/registry/v3"},
        answers=lambda: answers(f"{root}/apis/registry/v3/system/info"),
    )


SERVICES = (Service("registry", "Apicurio: a schema registry, Confluent-compatible", install, launch),)
