"""Where services listen: on loopback unless their folder says otherwise, at the port of last time where it is free."""

from __future__ import annotations

from pathlib import Path

from cluster.embedded.passwords import write_private
from cluster.embedded.ports import LOOPBACK, free_port, is_free

LISTEN = "listen"
"""A file in the folder of all services: the address that Kafka, Neo4j, PostgreSQL and S3 listen on."""


def host_for(own: Path) -> str:
    """The address that a service listens on."""
    file = own.parent / LISTEN
    return file.read_text() if file.is_file() else LOOPBACK


def port_for(own: Path, wanted: int, name: str = "port") -> int:
    """The port of a service that is about to start: that of its last start, else the first free from `wanted` on."""
    file, host = own / name, host_for(own)
    if file.is_file() and _is_free(int(file.read_text()), host):
        return int(file.read_text())
    port = free_port(wanted, tries=500).number
    while not is_free(port, host):
        port = free_port(port + 1, tries=500).number
    write_private(file, str(port))
    return port


def _is_free(port: int, host: str) -> bool:
    """On loopback, too: Kafka has listeners on both."""
    return is_free(port) and is_free(port, host)
