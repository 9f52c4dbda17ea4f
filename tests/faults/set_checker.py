"""Whether a set holds what was added to it: Jepsen's `checker/set`, with the multiplicities of its `set-full`.

    check_set(operations, final read)
      attempted     every element of an operation          acknowledged   those of an operation that ended `ok`
      lost          acknowledged and not read              unexpected     read, and attempted by nobody, or only by
      recovered     unknown, and read after all                           operations that failed
      duplicated    read more than once

Source: jepsen.checker/set and jepsen.checker/set-full (jepsen-io/jepsen).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from tests.faults.operations import Ended, Operation, T, of_element

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SetResult(Generic[T]):
    """See the module. `duplicated` says how often each element was read."""

    attempted: int
    acknowledged: int
    read: int
    lost: frozenset[T]
    unexpected: frozenset[T]
    duplicated: dict[T, int]
    recovered: frozenset[T]

    @property
    def holds(self) -> bool:
        """Whether nothing is lost, doubled or made up."""
        return not (self.lost or self.unexpected or self.duplicated)

    def told(self, operations: Sequence[Operation[T]], where: str = "") -> str:
        """What is wrong, with the operations on the first few elements of each kind."""
        lines = [f"{len(self.lost)} lost, {len(self.duplicated)} doubled, {len(self.unexpected)} unexpected{where}"]
        for name, elements in (("lost", self.lost), ("doubled", self.duplicated), ("unexpected", self.unexpected)):
            chosen = sorted(elements, key=repr)[:_SHOWN]
            lines += [f"  {name}: {element!r} ({of_element(operations, element)})" for element in chosen]
        return "\n".join(lines)


def check_set(operations: Sequence[Operation[T]], read: Iterable[T], *, once: bool = True) -> SetResult[T]:
    """Holds a final read against what was added.

    Args:
        read: with repetitions.
        once: an element that is read more often is doubled.
    """
    by_end: dict[Ended, set[T]] = {ended: set() for ended in Ended}
    for operation in operations:
        by_end[operation.ended].update(operation.elements)
    acknowledged, unknown = by_end[Ended.OK], by_end[Ended.INFO]
    may = acknowledged | unknown
    counted = Counter(read)
    return SetResult(
        attempted=len(may | by_end[Ended.FAIL]),
        acknowledged=len(acknowledged),
        read=len(counted),
        lost=frozenset(acknowledged - counted.keys()),
        unexpected=frozenset(counted.keys() - may),
        duplicated={element: times for element, times in counted.items() if times > 1 and once},
        recovered=frozenset(unknown & counted.keys() - acknowledged),
    )
