"""Who owns which buckets changes while the system runs: a shard comes in, or one that holds nothing goes out.

    writers pause: their leases are taken, here and on their shards
        → who gives buckets away has read as far as who takes them, so no record of theirs is passed over
        → which buckets hold no case → the new map, published only while the leases are still ours
        → the leases are given back, and each writer goes on with what the map gives it

One of these at a time, and no rebuild of a shard meanwhile (`alone`): an emptied shard seems to hold no case.
A shard refuses a writer without the lease, so what holds no case then holds none when the map changes: nothing has to
be copied, and no record is counted by two shards. Whoever calls this may be killed at any moment: leases expire, a
shard that is registered and owns nothing is what the next call goes on with, and the map is one transaction.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial

from actors import external_shards
from actors.shard_writer_actor import writer_lease
from actors.stack import Stack
from cluster.embedded import Role, server_spec
from cluster.embedded.layout import SHARDS_MAX
from cluster.errors import Conflict, IntelGraphError, Rejected, Retryable, Unavailable
from cluster.ids import BUCKETS, bucket_of
from cluster.shard_map import ShardMap, adopt_empty, drain
from cluster.stores.control_shards import Shard
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.graph import Cursor, Fence

_TAKE_S, _LOOK_S = 15.0, 0.1
_ALONE = "change of shards"
_FULL = "every bucket holds a case: a new shard could take none, since this version cannot move cases"


def add_shard(stack: Stack, deadline_s: float, failpoint: Failpoint = no_failpoint) -> tuple[str, ShardMap]:
    """(id, map) of one more embedded shard, which the running node starts. Where an earlier call stopped, it goes on.

    Args:
        deadline_s: for the server's start.
        failpoint: called with `registered`, `started`, and as `bring_in`.

    Raises:
        Rejected: there are as many as there may be, or no bucket without a case. Else as `bring_in`.
    """
    shard_id, current = next_shard(stack), stack.current_map()
    if not empty_buckets(stack, current.shards):
        raise Rejected(_FULL)
    register_shard(stack, shard_id)
    failpoint("registered")
    wait_answers(stack, shard_id, deadline_s)
    failpoint("started")
    return shard_id, bring_in(stack, shard_id, failpoint)


def add_external(
    stack: Stack, uri: str, wanted: str | None = None, failpoint: Failpoint = no_failpoint
) -> tuple[str, ShardMap]:
    """(id, map) of one more shard, in a Neo4j database that is empty or this shard's; that of one that owns buckets
    gets its new address. Where an earlier call stopped, it goes on.

    Args:
        wanted: its id; None for the next `neo4j-N`.
        failpoint: called with `registered`, and as `bring_in`.

    Raises:
        Rejected: the database is not fit or not free, or there is no bucket without a case. Else as `bring_in`.
    """
    with alone(stack, "registering a shard"):  # two at once would give one name to two databases
        shard_id, current = external_shards.shard_name(stack, uri, wanted), stack.current_map()
        owns = shard_id in current.shards
        if not owns and not empty_buckets(stack, current.shards):
            raise Rejected(_FULL)
        external_shards.register(stack, shard_id, uri)
    failpoint("registered")
    return shard_id, current if owns else bring_in(stack, shard_id, failpoint)


def next_shard(stack: Stack) -> str:
    """The id of the embedded shard that comes in next: one that owns nothing yet, or a new one.

    Raises:
        Rejected: there are as many as there may be.
    """
    owners, known = set(stack.current_map().shards), stack.embedded_shards()
    idle = [id for id in known if id not in owners]
    if not idle and len(known) >= SHARDS_MAX:
        raise Rejected(f"there are {len(known)} embedded shards, and more cannot be")
    return min(idle, key=_number) if idle else f"shard-{len(known)}"


def _number(shard_id: str) -> int:
    return int(shard_id.rpartition("-")[2])


def register_shard(stack: Stack, shard_id: str) -> None:
    """Make an embedded shard known, active: the node starts its server within seconds. Safe to call twice."""
    socket = server_spec(stack.state_dir, Role.SHARD, shard_id, 0).socket
    registered = stack.control.shards.register(shard_id, f"unix://{socket}", time.time())
    if registered.state == "draining":
        stack.control.shards.set_state(shard_id, "draining", "active", time.time())


def wait_answers(stack: Stack, shard_id: str, deadline_s: float) -> None:
    """Wait until a shard's server has been started. Raises Unavailable."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            with closing(stack.open_shard(shard_id, 2.0)) as shard:
                if shard.state() is not None:
                    return
        except IntelGraphError:  # its socket is not there yet, or it lets nobody in yet
            pass
        if time.monotonic() >= end:
            raise Unavailable(f"{shard_id} has not started in {deadline_s:.0f} s: see node.log, then try again", 5.0)
        time.sleep(_LOOK_S)


def empty_buckets(stack: Stack, shard_ids: Iterable[str]) -> set[int]:
    """Buckets that hold no case on these shards. Raises Unavailable."""
    return set(range(BUCKETS)) - {bucket_of(*case) for id in shard_ids for case in cases_of(stack, id)}


def cases_of(stack: Stack, shard_id: str) -> list[tuple[str, str]]:
    """(tenant, case) of every case that a shard holds. Raises Unavailable."""
    with closing(stack.open_shard(shard_id)) as shard:
        return shard.cases()


def bring_in(stack: Stack, shard_id: str, failpoint: Failpoint = no_failpoint) -> ShardMap:
    """Give a running shard its share of the buckets that hold no case. Blocks writers for a moment.

    Args:
        failpoint: called with `paused`, `planned`, `published`.

    Raises:
        Rejected: every bucket holds a case; nothing has changed.
        Conflict, Fenced, Unavailable: the map or a writer's lease was changed meanwhile, or a shard does not answer:
            nothing has changed, try again.
    """
    return _tried_again(partial(_bring_in, stack, shard_id, failpoint))


def _bring_in(stack: Stack, shard_id: str, failpoint: Failpoint) -> ShardMap:
    with alone(stack, f"taking {shard_id} in"), paused(stack, (current := stack.current_map()).shards) as held:
        failpoint("paused")
        for giver in current.shards:
            _check_ahead(stack, giver, [shard_id])
        new = adopt_empty(current, shard_id, empty_buckets(stack, current.shards))
        if shard_id not in new.shards:
            raise Rejected(
                f"no bucket is left that {shard_id} could take: each holds a case, or its shard has no more than its"
                " share, and this version cannot move cases"
            )
        failpoint("planned")
        stack.control.shard_maps.publish(current.revision, new, time.time(), "intelgraph shards add", held)
        failpoint("published")
    return new


def take_out(stack: Stack, shard_id: str, failpoint: Failpoint = no_failpoint) -> ShardMap:
    """Give a shard's buckets to the others. Refused while it holds a case. Safe to call twice.

    Args:
        failpoint: called with `paused`, `planned`, `published`.

    Raises:
        NotFound: there is no such shard.
        Rejected: it holds cases, or no other shard could take its buckets; nothing has changed.
        Conflict, Fenced, Unavailable: as `bring_in`.
    """
    registered = stack.control.shards.get(shard_id)
    current = _tried_again(partial(_take_out, stack, shard_id, failpoint))
    if registered.state == "active":
        stack.control.shards.set_state(shard_id, "active", "draining", time.time())
    stack.control.positions.remove(shard_id)  # nothing more is written to it: it holds the log no longer
    return current


def _take_out(stack: Stack, shard_id: str, failpoint: Failpoint) -> ShardMap:
    current = stack.current_map()
    if shard_id in current.shards:
        with alone(stack, f"draining {shard_id}"), paused(stack, (current := stack.current_map()).shards) as held:
            new = drain(current, shard_id)
            failpoint("paused")
            _check_ahead(stack, shard_id, [id for id in current.shards if id != shard_id])
            if cases := cases_of(stack, shard_id):
                raise Rejected(
                    f"{shard_id} holds {len(cases):,} cases: to drain it their data has to be moved, and this version"
                    " cannot move cases. A shard can be drained while it holds none."
                )
            failpoint("planned")
            stack.control.shard_maps.publish(current.revision, new, time.time(), "intelgraph shards drain", held)
            failpoint("published")
        current = new
    return current


class _Behind(Unavailable):
    """A shard that gives buckets away is not whole, or has not read what one that takes them has read past."""


def behind(giver: Mapping[int, Cursor], taker: Mapping[int, Cursor]) -> list[int]:
    """Log partitions of which the taker has read more: in between may stand records of a bucket that is given away,
    which the giver has not counted yet and the taker never would."""
    return [p for p, cursor in taker.items() if p in giver and cursor.at > giver[p].at]


def _check_ahead(stack: Stack, giver: str, takers: Iterable[str]) -> None:
    with closing(stack.open_shard(giver)) as shard:
        state, read = shard.state(), shard.cursors()
    if state is None or state.serving != state.raised:
        raise _Behind(f"{giver} catches up with the log: what it holds is not all that it will hold", _LOOK_S)
    for taker in takers:
        with closing(stack.open_shard(taker)) as shard:
            if late := behind(read, shard.cursors()):
                raise _Behind(f"{giver} is behind {taker} in log partitions {late}: it has to catch up first", _LOOK_S)


def _tried_again(step: Callable[[], ShardMap]) -> ShardMap:
    end = time.monotonic() + _TAKE_S
    while True:
        try:
            return step()
        except _Behind:
            if time.monotonic() >= end:
                raise
        time.sleep(5 * _LOOK_S)  # the writers go on meanwhile


@contextmanager
def alone(stack: Stack, who: str) -> Iterator[tuple[str, int]]:
    """Keep other changes of ownership, and rebuilds, away for a `with` block; yields its lease, (name, token).

    It ends by itself after `shards.lease_s`, unless it is renewed.

    Raises:
        Conflict: another one is still at work, and says who; one that was killed is waited for.
    """
    token = _alone(stack, f"{who} ({uuid.uuid4().hex[:8]})")
    try:
        yield _ALONE, token
    finally:
        stack.control.leases.release(_ALONE, token)


def _alone(stack: Stack, holder: str) -> int:
    ttl_s = stack.settings.shards.lease_s
    end = time.monotonic() + ttl_s + 1.0
    while True:
        try:
            return stack.control.leases.acquire(_ALONE, holder, ttl_s, time.time())
        except Conflict:
            if time.monotonic() >= end:
                raise
        time.sleep(_LOOK_S)


@contextmanager
def paused(stack: Stack, shard_ids: Iterable[str]) -> Iterator[Mapping[str, int]]:
    """Keep the writers of these shards from writing, for a `with` block; yields the leases, name → token.

    It ends by itself after `shards.lease_s`: what rests on it has to name the tokens.

    Raises:
        Unavailable, Fenced: a shard does not answer, or starts anew just now.
    """
    leases, ttl_s = stack.control.leases, stack.settings.shards.lease_s
    holder, held = f"shard map {uuid.uuid4().hex}", dict[str, int]()
    try:
        for id in shard_ids:
            name = writer_lease(id)
            held[name] = leases.acquire(name, holder, ttl_s, time.time(), by_force=True)
            _take(stack, id, held[name])
        yield held
    finally:
        for name, token in held.items():
            leases.release(name, token)


def _take(stack: Stack, shard_id: str, token: int) -> None:
    """Have the shard refuse its writer; a shard that starts anew just now is asked again."""
    end = time.monotonic() + min(_TAKE_S, stack.settings.shards.lease_s / 2)
    while True:
        try:
            with closing(stack.open_shard(shard_id)) as shard:
                epoch, state = stack.control.shards.get(shard_id).epoch, shard.state()
                if state is None or state.raised < epoch:  # whoever raised it in the registry was killed just then
                    external_shards.claim_own(stack, shard_id)
                    shard.raise_epoch(epoch)
                return shard.take_lease(Fence(epoch, token, stack.current_map().partitions_of(shard_id)))
        except Retryable:
            if time.monotonic() >= end:
                raise
        time.sleep(_LOOK_S)


def wait_serving(stack: Stack, shard_ids: Iterable[str], deadline_s: float) -> list[str]:
    """Wait until these shards let readers in under their present epoch; returns those that do not yet."""
    end, left = time.monotonic() + deadline_s, list(shard_ids)
    while left := [id for id in left if not _serves(stack, stack.control.shards.get(id))]:
        if time.monotonic() >= end:
            break
        time.sleep(_LOOK_S)
    return left


def _serves(stack: Stack, registered: Shard) -> bool:
    try:
        with closing(stack.open_shard(registered.id, 2.0)) as shard:
            state = shard.state()
    except IntelGraphError:
        return False
    return state is not None and state.serving == registered.epoch
