"""A free TCP port on loopback, near the one that was wanted, and kept from other installations until it is bound.

Seconds pass from choosing a port to the moment at which Ray or HAProxy binds it, and HAProxy binds in a way that lets a
second one of the same user in unnoticed. So whoever chooses holds the port's name: an abstract unix socket, which the
kernel keeps apart in the same way as ports, for all users, and forgets with the process that holds it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
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


class HeldPorts:
    """Ports that this process has chosen: no other holder chooses them until `close`, or until this process ends."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self, wanted: int, host: str = LOOPBACK, tries: int = _TRIES) -> Port:
        """The first port from `wanted` on that is free and that nobody holds; from now on this process holds it.

        Raises:
            Rejected: as `free_port`.
        """
        return _first(wanted, host, tries, self._hold)

    def _hold(self, number: int, host: str) -> bool:
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0intelgraph/port/{number}")
        except OSError:
            name.close()
            return False
        if not is_free(number, host):
            name.close()
            return False
        self._held.append(name)
        return True

    def close(self) -> None:
        """Let go of all of them. Safe to call twice."""
        while self._held:
            self._held.pop().close()


def free_port(wanted: int, host: str = LOOPBACK, tries: int = _TRIES) -> Port:
    """The first free port from `wanted` on. Nothing is reserved: bind it soon, and ask again if that fails.

    Raises:
        Rejected: none of the `tries` ports is free, or the number is none.
    """
    return _first(wanted, host, tries, is_free)


def _first(wanted: int, host: str, tries: int, is_good: Callable[[int, str], bool]) -> Port:
    if not 1 <= wanted <= 65_535:
        raise Rejected(f"port {wanted} is not a port; choose one from 1 to 65535")
    last = min(wanted + tries, 65_536)
    for number in range(wanted, last):
        if is_good(number, host):
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
