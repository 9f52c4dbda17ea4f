"""Neo4j Community with bolt, authentication and TLS on: the official artifacts, started by a few lines of Java."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from services import certificates
from services.artifacts import fetch_jars
from services.launching import listens, put, settings
from services.machine import java
from services.ports import host_for, port_for
from services.spec import Launch, Running, Service

COORDINATES = ("org.neo4j:neo4j:2026.08.1",)
_LAUNCHER = Path(__file__).parent / "neo4j" / "Neo4jServer.java"
_OPENS = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.nio", "java.io", "sun.nio.ch")]


def install(artifacts: Path) -> None:
    """Fetch the server's jars."""
    java()
    fetch_jars("neo4j", COORDINATES, artifacts / "neo4j")


def launch(own: Path, artifacts: Path, _: Mapping[str, Running]) -> Launch:
    """A server on this folder; its password is drawn at the first start, or is that of the servers beside it."""
    host, port = host_for(own), port_for(own, 7687)
    _as_those_beside(own)
    password = put(own / "password", secrets.token_urlsafe(24))
    authority = certificates.make(own / "certificates", "bolt", key="private.key", certificate="public.crt", host=host)
    conf = {
        "server.bolt.enabled": "true",
        "server.bolt.listen_address": f"{host}:{port}",
        "server.bolt.tls_level": "REQUIRED",
        "dbms.ssl.policy.bolt.enabled": "true",
        "dbms.ssl.policy.bolt.base_directory": str(own / "certificates" / "bolt"),
        "dbms.ssl.policy.bolt.client_auth": "NONE",
        "server.default_listen_address": "127.0.0.1",
        "server.memory.pagecache.size": "256m",
        "dbms.security.auth_enabled": "true",
        "dbms.usage_report.enabled": "false",
    }
    settings(own / "conf" / "neo4j.conf", conf)
    heap = ["-Xms1g", "-Xmx1g"]
    return Launch(
        command=[java(), *heap, *_OPENS, "-cp", f"{artifacts / 'neo4j'}/*", str(_LAUNCHER), str(own)],
        address=f"bolt+ssc://{host}:{port}",
        details={"user": "neo4j", "password": password, "ca": str(authority)},
        answers=lambda: (own / "ready").exists() and listens(port, host),
        start_s=400.0,  # twenty times what an idle machine needs
        environment={"INTELGRAPH_NEO4J_READY": str(own / "ready")},
    )


def _as_those_beside(own: Path) -> None:
    """Password and certificate of another Neo4j of the same folder, where this one has none yet: shards of one
    installation have the same."""
    for other in sorted(own.parent.glob("neo4j-*")):
        if (other / "password").is_file() and not (own / "password").exists():
            shutil.copytree(other / "certificates", own / "certificates", dirs_exist_ok=True)
            shutil.copy2(other / "password", own / "password")


SERVICES = tuple(
    Service(f"neo4j-{n}", "Neo4j Community: a shard (bolt, TLS, authentication)", install, launch) for n in range(2)
)
