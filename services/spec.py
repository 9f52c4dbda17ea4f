"""What a service is and what a running one looks like: values and one protocol."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


class NotInstallable(Exception):
    """Something that a service needs cannot be had on this machine; the message says what, and what to do."""


class Running(msgspec.Struct, frozen=True):
    """A service that was started. Lies in `service.json`, which only its owner can read.

    Args:
        pid, start_ticks: its process; the second tells it from a later owner of the pid.
        address: where clients connect.
        details: what else they need, such as user, password, certificate.
        stop_signal: what ends it in order, without waiting for its clients.
    """

    name: str
    pid: int
    start_ticks: int
    address: str
    details: dict[str, str] = {}
    stop_signal: int = signal.SIGTERM

    def __repr__(self) -> str:
        return f"Running({self.name!r}, pid={self.pid}, address={self.address!r})"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one service.

    Args:
        command: program and arguments; no secret among them.
        address, details: as in `Running`.
        answers: whether it serves by now; called again and again, raises nothing.
        environment: on top of the caller's.
        user: who it runs as, when the caller is root.
        start_s: how long it may take until it answers, on a busy machine too.
        stop_signal: as in `Running`.
    """

    command: Sequence[str]
    address: str
    answers: Callable[[], bool]
    details: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    start_s: float = 300.0
    stop_signal: int = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Args:
        name: what it is called on the command line.
        what: one line for people.
        needs: services that have to run before it.
        install: fetch what it needs into a folder; safe to call again. Raises NotInstallable.
        launch: given (its own folder, where its artifacts are, the running services it needs).
    """

    name: str
    what: str
    install: Callable[[Path], None]
    launch: Callable[[Path, Path, Mapping[str, Running]], Launch]
    needs: tuple[str, ...] = ()
