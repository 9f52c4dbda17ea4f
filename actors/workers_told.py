"""How many stream workers there are and why: for commands, and for `/metrics`. See `actors.told`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from actors.told import forget, tell, told

_NAME = "stream-workers"


@dataclass(frozen=True, slots=True)
class WorkersTold:
    """What was decided last.

    Args:
        wanted: how many there should be.
        ready: that answer, of these.
        draining: names of those that bring their batches to an end, and then are no more.
        least, most: bounds at the moment.
        reason: of the last look, in words.
        change: the last one, in words; empty: there was none.
        changed: when that was, seconds since 1970; 0: never.
    """

    wanted: int
    ready: int
    draining: tuple[str, ...]
    least: int
    most: int
    reason: str
    change: str = ""
    changed: float = 0.0


def tell_workers(state_dir: Path, told: WorkersTold) -> None:
    """Replaces what is told, as a whole. Raises OSError."""
    tell(state_dir, _NAME, asdict(told))


def told_workers(state_dir: Path) -> WorkersTold | None:
    """What was told last; None: nothing."""
    found = told(state_dir, _NAME)
    try:
        return WorkersTold(**{**found, "draining": tuple(found["draining"])}) if found else None
    except (KeyError, TypeError):  # another version told it
        return None


def forget_workers(state_dir: Path) -> None:
    """Nothing is told any more. Safe to call twice."""
    forget(state_dir, _NAME)
