"""What must hold of an installation after a fault run, whatever went wrong in it."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.fold import Fold
from cluster.ids import bucket_of
from cluster.model import Kind, Record
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.faults.harness import Installation
from tests.faults.producer import History


def check(system: Installation, *histories: History) -> Fold:
    """I1–I6 for everything that was sent; the log is the truth between the producers and the shards.

    Returns:
        the sequential fold that shards were held against.
    """
    logged = [(p, n, r) for p, n, rows in system.log_records() for r in rows]
    truth = {r for _, _, r in logged}
    for history in histories:
        assert history.ok <= truth, "acknowledged and lost"
        assert history.ok | history.info <= history.invoked, "acknowledged and never sent"
    if histories:
        assert truth <= set().union(*(h.invoked for h in histories)), "in the log and never sent"
    fold = Fold().apply_all(r for _, _, r in logged)
    shards = system.opened()
    try:
        assert export_lines(shards) == fold.export_lines()
        assert state_lines(shards) == fold.state_lines()
        _check_owners(system, shards)
        _check_outcomes(system, shards, logged)
    finally:
        for shard in shards:
            shard.close()
    return fold


def _check_owners(system: Installation, shards: Sequence[FalkorShard]) -> None:
    current = system.stack.current_map()
    for name, shard in zip(system.shard_ids, shards, strict=True):
        state = shard.state()
        assert state is not None
        assert state.owned == frozenset(current.buckets_of(name)), "owners differ"
        for tenant, case in shard.cases():
            assert current.owners[bucket_of(tenant, case)] == name, "a case where it does not belong"
            for thing in shard.things(tenant, case):
                for register in thing.registers.values():
                    owner, made_here, _ = register.props.partition('"name":"')[2].partition(" thing ")
                    assert not made_here or owner == tenant, "a record crossed a tenant"


def _check_outcomes(
    system: Installation, shards: Sequence[FalkorShard], logged: Sequence[tuple[int, int, Record]]
) -> None:
    """Each record of each log entry has one outcome, counted once, however often it was applied."""
    current = system.stack.current_map()
    for name, shard in zip(system.shard_ids, shards, strict=True):
        mine = sum(r.kind < Kind.FLOOR and current.owners[r.bucket] == name for _, _, r in logged)
        cursors = shard.cursors().values()
        assert sum(c.records for c in cursors) == mine
        assert sum(c.applied + c.duplicate + c.stale for c in cursors) == mine
        assert sum(o.total for o in shard.outcomes().values()) == mine
