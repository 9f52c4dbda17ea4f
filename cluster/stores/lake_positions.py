"""How far the lake, or anything folded from it, is complete: the whole map of log positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from cluster.errors import Corrupt


class PartitionPosition(NamedTuple):
    """The last entry taken from a log partition, and how many records there were up to it."""

    number: int = 0
    records: int = 0


@dataclass(frozen=True)
class Positions:
    """Positions of all log partitions; a partition that is absent stands at 0.

    Args:
        log: the log's own name; empty while nothing was ever taken.
        generation: of the log. Numbers go on from one to the next, so positions of both compare.
        partitions: last entry taken, by partition; entries at 0 are left out, so that equal positions are equal.
    """

    log: str = ""
    generation: int = 0
    partitions: Mapping[int, PartitionPosition] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, partition: int) -> PartitionPosition:
        """Where a partition stands."""
        return self.partitions.get(partition, PartitionPosition())

    @property
    def records(self) -> int:
        """Records taken from all partitions."""
        return sum(p.records for p in self.partitions.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever taken."""
        return not self.partitions

    def advanced(self, taken: Mapping[int, PartitionPosition]) -> Positions:
        """The same with some partitions moved."""
        return Positions(self.log, self.generation, MappingProxyType({**self.partitions, **taken}))

    def covers(self, other: Positions) -> bool:
        """Whether everything that `other` holds is held here too."""
        if other.is_empty:
            return True
        if self.log != other.log:
            return False
        return all(self.of(p).number >= position.number for p, position in other.partitions.items())

    def as_plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "log": self.log,
            "generation": self.generation,
            "partitions": {str(p): list(self.partitions[p]) for p in sorted(self.partitions)},
        }

    def as_text(self) -> str:
        """One line of JSON: what a table commit carries."""
        return msgspec.json.encode(self.as_plain()).decode()

    def __reduce__(self) -> tuple[Any, ...]:
        return positions_of, (self.as_plain(),)

    def __hash__(self) -> int:
        return hash(self.as_text())


def positions_of(plain: Mapping[str, Any] | str) -> Positions:
    """Positions from their plain values or text.

    Raises:
        Corrupt: they are none.
    """
    try:
        values: Any = msgspec.json.decode(plain) if isinstance(plain, str) else plain
        partitions = {int(p): PartitionPosition(int(n), int(r)) for p, (n, r) in values["partitions"].items()}
        return Positions(str(values["log"]), int(values["generation"]), MappingProxyType(partitions))
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.DecodeError) as error:
        raise Corrupt(f"these are no log positions: {plain!r}") from error
