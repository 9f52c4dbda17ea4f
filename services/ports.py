"""Ports on loopback: a service keeps the one it had, where that is still free."""

from __future__ import annotations

from pathlib import Path

from cluster.embedded.passwords import write_private
from cluster.embedded.ports import free_port, is_free


def port_for(own: Path, wanted: int, name: str = "port") -> int:
    """The port of a service that is about to start: that of its last start, else the first free from `wanted` on."""
    file = own / name
    if file.is_file() and is_free(int(file.read_text())):
        return int(file.read_text())
    port = free_port(wanted, tries=500).number
    write_private(file, str(port))
    return port
