"""A history as Jepsen keeps one: what each process invoked, and how that ended.

`invoke` is always there; then `ok` (it happened), `fail` (it did not), or `info` (it may have, now or later). An
operation without an end counts as `info`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_PLACES = count(1)


class Ended(StrEnum):
    """How an operation ended."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(slots=True)
class Operation(Generic[T]):
    """One call that adds elements.

    Args:
        process: who called; a process has one call at a time.
        elements: in the order in which they were given.
        invoked, completed: places in time, counted from 1; `completed` is 0 while nobody knows.
    """

    process: str
    elements: Sequence[T]
    invoked: int
    completed: int = 0
    ended: Ended = Ended.INFO

    def __str__(self) -> str:
        return f"#{self.invoked} by {self.process}: {self.ended}" + (f" at #{self.completed}" if self.completed else "")


@dataclass
class Operations(Generic[T]):
    """Operations in the order of their calls. For one thread; places are of all histories of this process."""

    made: list[Operation[T]] = field(default_factory=list)

    def invoke(self, process: str, elements: Sequence[T]) -> Operation[T]:
        """A call begins."""
        self.made.append(Operation(process, elements, next(_PLACES)))
        return self.made[-1]

    def complete(self, operation: Operation[T], ended: Ended) -> None:
        """It ended; with `info` its place in time stays open."""
        operation.ended = ended
        operation.completed = 0 if ended is Ended.INFO else next(_PLACES)


def without_time(process: str, elements: Sequence[T], ended: Ended) -> Operation[T]:
    """One of which is known that it ended by now, and not when it began."""
    return Operation(process, elements, 0, next(_PLACES), ended)


def of_element(operations: Sequence[Operation[T]], element: T) -> str:
    """Every operation on an element, for people."""
    return "; ".join(str(one) for one in operations if element in one.elements) or "no operation"
