"""A free TCP port on loopback, near the one that was wanted."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from cluster.errors import Rejected

LOOPBACK = "127.0.0.1"
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Port:
    """A port that could be bound a moment ago.

    Args:
        number: what to bind.
        wanted: what was asked for; another `number` means that it is taken, and the user should be told.
    """

    number: int
    wanted: int

    @property
    def note(self) -> str | None:
        """A sentence for the user if the port is not the one that was wanted."""
        if self.number == self.wanted:
            return None
        return f"port {self.wanted} is taken by another program; using {self.number}"


def free_port(wanted: int, host: str = LOOPBACK, tries: int = _TRIES) -> Port:
    """The first free port from `wanted` on. Nothing is reserved: bind it soon, and ask again if that fails.

    Raises:
        Rejected: none of the `tries` ports is free, or the number is none.
    """
    if not 1 <= wanted <= 65_535:
        raise Rejected(f"port {wanted} is not a port; choose one from 1 to 65535")
    last = min(wanted + tries, 65_536)
    for number in range(wanted, last):
        if is_free(number, host):
            return Port(number, wanted)
    raise Rejected(f"ports {wanted} to {last - 1} on {host} are all taken; choose another")


def is_free(number: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now: the port is bound for a moment, nothing is connected to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, number))
            trial.listen(1)
        except OSError:
            return False
    return True
