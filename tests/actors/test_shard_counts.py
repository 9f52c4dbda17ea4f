"""What a shard counted and the log does not hold any more is taken off, once, and nothing else."""

from __future__ import annotations

import pytest

from actors.shard_counts import lost_seams, surplus
from cluster import batch
from cluster.model import Kind, Record
from cluster.stores.graph import Cursor, Outcomes
from cluster.stores.log import Generation, Seam
from cluster.stores.redis_log import RedisEventLog
from cluster.versions import epoch_of
from tests.strategies import make

EPOCH = epoch_of(make("t", "c", Kind.ENTITY, "person", "p", "s", 1).stamp)


def facts(first: int, last: int, source: str = "s") -> list[Record]:
    return [make("t", "c", Kind.ENTITY, "person", f"p{n}", source, n) for n in range(first, last + 1)]


def test_surplus_takes_of_what_was_applied_first() -> None:
    outcomes = {
        ("t", "s", EPOCH): Outcomes(2, 3, 1),
        ("t", "gone", EPOCH): Outcomes(0, 1, 1),
        ("t", "even", EPOCH): Outcomes(1),
    }
    rows = batch.frame_of([*facts(1, 3), *facts(1, 1, "even")])
    found = surplus(outcomes, rows).by_source
    assert dict(found) == {("t", "s", EPOCH): Outcomes(-2, -1, 0), ("t", "gone", EPOCH): Outcomes(0, -1, -1)}


@pytest.mark.services
def test_only_cursors_among_lost_entries_are_meant(event_log: RedisEventLog) -> None:
    class Seamed:
        generations = (Generation(2, {0: Seam(3, 5, 9), 1: Seam(3, 3, 3)}),)

    def cursors(at: int) -> dict[int, Cursor]:
        return {p: Cursor(p, at, 1, 0, 0, 0, 0) for p in (0, 1)}

    assert [at for at in range(12) if lost_seams(Seamed(), cursors(at))] == [6, 7, 8]  # type: ignore[arg-type]
    assert lost_seams(event_log, cursors(7)) == {}
