"""What one turn of a shard writer carries, and two of them as one.

A batch is made ready while the shard works on the one before, of several readings if that takes long. They go together
where that makes no difference to going one after the other: each thing's records stay in their order, and whatever
comes before the rows (floors, priorities) or after them (things that several sources speak of) is of one reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.fold import Outcome
from cluster.model import Record
from cluster.stores.graph import CursorMove, Fence

Rows = list[tuple[Fence, Any]]


@dataclass
class Gulp:
    """Records of several partitions, folded, and the cursors' steps."""

    moves: list[CursorMove]
    cases: set[tuple[str, str]]
    rows: Rows
    """Records of things with one register in this batch, as the shard has encoded them: a part for each lane."""
    several: list[Record]
    """Records of things that several sources of this batch speak of: they take the way of `resolve`."""
    settled: list[tuple[Record, Outcome]] = field(default_factory=list)
    """Records whose outcome is known before anything is written."""
    conflicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    oldest_ms: int = 0
    bytes: int = 0
    """Of the entries that it was read from."""
    passed: Counter[int] = field(default_factory=Counter)
    """Records in these entries, by partition; those of other shards too."""
    system: list[Record] = field(default_factory=list)
    whole: bool = False
    """Nothing goes together with it: there is as much as one turn takes, or something that is done before or after its
    rows."""


def joined(first: Gulp, second: Gulp, most_bytes: int, encoded: Callable[[Any, Any], Any]) -> Gulp | None:
    """Two readings, one after the other, as one batch; None where they have to be written one after the other.

    Args:
        most_bytes: with more nothing more goes together.
        encoded: two parts of one lane as one: `GraphShard.joined`.
    """
    if first.whole or second.several or second.system:
        return None
    size = first.bytes + second.bytes
    moves = {move.partition: move for move in first.moves}
    for move in second.moves:
        before = moves.get(move.partition)
        moves[move.partition] = before._replace(end=move.end, records=before.records + move.records) if before else move
    rows = {fence.partitions: (fence, part) for fence, part in first.rows}
    for fence, part in second.rows:
        before_it = rows.get(fence.partitions)
        rows[fence.partitions] = (fence, encoded(before_it[1], part) if before_it else part)
    return replace(
        first,
        moves=list(moves.values()),
        cases=first.cases | second.cases,
        rows=list(rows.values()),
        settled=first.settled + second.settled,
        conflicts=first.conflicts + second.conflicts,
        oldest_ms=min(first.oldest_ms, second.oldest_ms),
        bytes=size,
        passed=first.passed + second.passed,
        whole=second.whole or size > most_bytes,
    )
