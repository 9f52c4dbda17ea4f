"""Small things that launches share: files with settings, secrets that stay, and whether a port is listened on."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from cluster.embedded.passwords import write_private

LOOPBACK = "127.0.0.1"


def put(path: Path, text: str) -> str:
    """What the file holds; `text` is written first where there is no file."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, text)
    return path.read_text()


def settings(path: Path, values: Mapping[str, str]) -> None:
    """Write a file of `name=value` lines, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Whether somebody takes connections at the port."""
    with socket.socket() as trial:
        trial.settimeout(1.0)
        return trial.connect_ex((host, port)) == 0
