"""What must hold of an installation after a fault run, whatever went wrong in it.

the log has what was acknowledged, and nothing that was not sent        set checker
shards have each register of the log's fold once, and nothing else      set checker; export and state, line by line
what was seen on the way was a beginning of that                        list-append checker
every bucket has one owner, every record one outcome
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cluster.fold import Fold
from cluster.ids import bucket_of
from cluster.model import Kind, Record
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.faults.harness import Installation
from tests.faults.observer import Observer, Register
from tests.faults.operations import Ended, Operation, without_time
from tests.faults.producer import History
from tests.faults.set_checker import SetResult, check_set

Effect = tuple[Register, str]
"""A register and the stamp of what it holds."""


def check(system: Installation, *histories: History, observed: Sequence[Observer] = ()) -> Fold:
    """I1–I6 for everything that was sent; the log is the truth between the producers and the shards.

    Args:
        observed: who looked on.

    Returns:
        the sequential fold that shards were held against.
    """
    logged = [(p, n, r) for p, n, rows in system.log_records() for r in rows]
    operations = [operation for history in histories for operation in history.operations]
    if histories:
        in_log = check_set(operations, (r for _, _, r in logged), once=False)  # what is appended again has no effect
        system.outcome.lost = len(in_log.lost) + len(in_log.unexpected)
        assert in_log.holds, in_log.told(operations, _where("in the log"))
    fold = Fold().apply_all(r for _, _, r in logged)
    shards = system.opened()
    try:
        effects, done = _effects(fold, shards)
        system.outcome.lost += len(effects.lost) + len(effects.unexpected)
        system.outcome.doubled = len(effects.duplicated)
        assert effects.holds, effects.told(done, _where("in the shards"))
        assert export_lines(shards) == fold.export_lines()
        assert state_lines(shards) == fold.state_lines()
        _check_owners(system, shards)
        _check_outcomes(system, shards, logged)
    finally:
        for shard in shards:
            shard.close()
    letters = system.stack.control.dead_letters
    for observer in observed:
        anomalies = observer.anomalies(operations, [r for _, _, r in logged])
        assert not anomalies, f"{len(anomalies)} anomalies{_where('seen')}: {anomalies[:5]}"
    system.outcome.dead = sum(
        len(letters.list(tenant, limit=1_000)) for tenant in system.stack.control.sources.tenants()
    )
    system.outcome.verified(histories or (_of_log(logged),))
    return fold


def _of_log(logged: Sequence[tuple[int, int, Record]]) -> History:
    """Where nobody kept a history, what was appended was acknowledged."""
    rows = {r for _, _, r in logged}
    return History(rows, rows)


def _where(place: str) -> str:
    """The place, and the test with its seed."""
    return f" {place}, {os.environ.get('PYTEST_CURRENT_TEST', 'by hand').partition(' ')[0]}"


def _effects(fold: Fold, shards: Sequence[StoredShard]) -> tuple[SetResult[Effect], list[Operation[Effect]]]:
    """The fold's registers against those of all shards together."""
    meant = [((thing, source), r.stamp) for thing, by in fold.registers.items() for source, r in by.items()]
    held = [
        (((thing.tenant, thing.case, thing.kind, thing.type, thing.id), source), register.stamp)
        for shard in shards
        for tenant, case in shard.cases()
        for thing in shard.things(tenant, case)
        for source, register in thing.registers.items()
    ]
    done = [without_time("the log", meant, Ended.OK)]
    return check_set(done, held), done


def _check_owners(system: Installation, shards: Sequence[StoredShard]) -> None:
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
    system: Installation, shards: Sequence[StoredShard], logged: Sequence[tuple[int, int, Record]]
) -> None:
    """Each record of each log entry has one outcome, counted once, however often it was applied."""
    current, found = system.stack.current_map(), system.outcome
    found.applied = found.duplicate = found.stale = 0
    for name, shard in zip(system.shard_ids, shards, strict=True):
        mine = sum(r.kind < Kind.FLOOR and current.owners[r.bucket] == name for _, _, r in logged)
        cursors = shard.cursors().values()
        found.applied += sum(c.applied for c in cursors)
        found.duplicate += sum(c.duplicate for c in cursors)
        found.stale += sum(c.stale for c in cursors)
        assert sum(c.records for c in cursors) == mine
        assert sum(c.applied + c.duplicate + c.stale for c in cursors) == mine
        assert sum(o.total for o in shard.outcomes().values()) == mine
