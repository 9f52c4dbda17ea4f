"""What the log has lost, by looking at everybody who has read from it: lake, shards, and what was ever reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

import redis

from actors.away import note_away
from actors.lost_tail import Damage, Held, judge
from actors.stack import Stack
from cluster.errors import Corrupt, IntelGraphError, Unavailable
from cluster.shard_map import ShardMap
from cluster.stores import control_changes as changes
from cluster.stores.control_journal import PARTITION
from cluster.stores.log import LogLostTail
from cluster.stores.open_log import CONTROL_NAMESPACE
from cluster.stores.redis_errors import translated
from cluster.stores.redis_log_setup import LogKeys, ranges

_ANSWER_S = 5.0


def damage_of(
    stack: Stack,
    log_name: str | None,
    ends: Callable[[], Mapping[int, int]],
    current: ShardMap,
    *,
    all_answer: bool,
    silent: set[str] | None = None,
) -> Damage:
    """What a log lacks that ends so.

    Args:
        log_name: of the log; None: not known here, and not compared.
        ends: of the log; asked last, since what is appended, and read, meanwhile is no loss.
        all_answer: whether a shard or a lake that does not answer is an error; else only what it has reported counts.
        silent: gets the shards that do not answer.

    Raises:
        Unavailable: a shard, or the lake, does not answer.
        Corrupt: the lake was filled from another log; or somebody has read partitions that nobody knows any more.
    """
    cursors: dict[str, dict[int, int]] = {}
    whole: set[str] = set()
    for shard_id in current.shards:
        try:
            with closing(stack.open_shard(shard_id, _ANSWER_S)) as shard:
                cursors[shard_id] = {p: c.at for p, c in shard.cursors().items()}
                state = shard.state()
        except IntelGraphError as error:
            if all_answer:
                raise _silent(shard_id, error) from error
            if silent is not None:
                silent.add(shard_id)
            continue
        if state is not None and not state.lacking:
            whole.add(shard_id)
    read = _map_of_log(stack, current)
    owners = {p: read.shards_of_partition(p) for p in range(read.all_partitions)}
    lake = _lake_numbers(stack, log_name, all_answer)
    reported = stack.control.positions.greatest()
    found = ends()
    count = max(current.all_partitions, len(found))
    _check_known(count, {**{f"shard {id}": at for id, at in cursors.items()}, "the lake": lake})
    return judge(Held({p: found.get(p, 0) for p in range(count)}, lake, cursors, frozenset(whole), reported), owners)


def _check_known(count: int, read: Mapping[str, Mapping[int, int]]) -> None:
    """Nothing, if who has read from the log knows no more partitions than log and control store do."""
    for who, at in read.items():
        if (beyond := max((p for p, number in at.items() if number), default=-1)) >= count:
            raise Corrupt(
                f"{who} has read partition {beyond} of the event log, and log and control store know {count}: both are"
                " of before the log got more. Restore newer ones; or say `intelgraph log repartition N` with the number"
                " that it had, then `intelgraph up` with log.partitions N"
            )


def _map_of_log(stack: Stack, current: ShardMap) -> ShardMap:
    """The map by which the log was read last: one with another number of partitions is published before the log has
    it, and the shards that read a partition since then hold nothing of it."""
    newest = stack.control.positions.newest_log()
    return current if newest is None else replace(current, partitions=newest.partitions)


def _silent(who: str, error: IntelGraphError) -> Unavailable:
    return Unavailable(
        f"the event log begins a new generation, and {who}, which may hold what is lost, does not answer:"
        f" start it ({error})",
        5.0,
    )


def _lake_numbers(stack: Stack, log_name: str | None, all_answer: bool) -> dict[int, int]:
    try:
        lake = stack.lake_address.find()
        if lake is None:
            return {}
        with lake:
            positions = lake.positions()
    except IntelGraphError as error:
        if all_answer:
            raise _silent("the lake", error) from error
        return {}  # its files may lie elsewhere: whoever has a whole log does not wait for them
    if not positions.is_empty and log_name not in (None, positions.log):
        raise Corrupt("the lake was filled from another log: restore the log's files, or move the lake away")
    return {p: at.number for p, at in positions.partitions.items()}


def check_tail(stack: Stack, operator: redis.Redis) -> None:
    """Nothing, if the embedded log, seen by its operator before anybody is let in, has all that its consumers have.

    Raises:
        LogLostTail: it has not; the next start of the system makes it good.
        Corrupt: it is empty, or its counts are gone.
    """
    _check_control_tail(stack, operator)
    current = stack.control.shard_maps.current()
    if current is None:
        return

    def ends() -> dict[int, int]:
        with translated("the event log"):
            found = ranges(operator, LogKeys(), range(current.all_partitions))
        return {partition: end for partition, (_, end) in found.items()}

    silent: set[str] = set()
    damage = damage_of(stack, None, ends, current, all_answer=False, silent=silent)
    damage.check_tails()
    note_away(stack.control.audit, silent, {p: seam.end for p, seam in damage.seams.items()}, time.time())


def _check_control_tail(stack: Stack, operator: redis.Redis) -> None:
    with stack.control.database.read() as connection:
        bound = changes.number_of(connection)
    if bound is None or not bound.serving:
        return
    with translated("the event log"):
        _, end = ranges(operator, LogKeys(CONTROL_NAMESPACE), [PARTITION])[PARTITION]
    if end < bound.number:
        raise LogLostTail(PARTITION, int(bound.number), end)
