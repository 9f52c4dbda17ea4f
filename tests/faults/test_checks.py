"""The checks after a fault run find what is planted: an event lost, one too many, an effect lost, one twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from actors.shard_writer import ShardWriter
from cluster.fold import Priorities
from cluster.ids import bucket_of
from cluster.stores.graph import Fence, StoredThing, merged_record
from tests.faults.append_checker import ListRead, VersionRead
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.observer import Observer
from tests.faults.producer import History, Producer, events

pytestmark = [pytest.mark.services]
RECORDS = events(1, 600)


@pytest.fixture(scope="module")
def sent(server_root: Path) -> Iterator[tuple[Installation, History, Observer]]:
    with Installation(server_root / "ck") as system:
        system.start()
        with Observer(system, RECORDS) as observer:
            history = Producer(system, RECORDS, rate_per_s=600).send()
            system.settle()
            wait_until(lambda: bool(observer.versions and observer.lists), message="somebody has looked")
        yield system, history, observer


def test_what_is_right_passes(sent: tuple[Installation, History, Observer]) -> None:
    system, history, observer = sent
    check(system, history, observed=[observer])
    found = system.outcome
    assert (found.events, found.acked, found.lost, found.doubled, found.dead) == (600, 600, 0, 0, 0)
    assert found.applied + found.duplicate + found.stale >= 600
    assert {read.observer for read in observer.versions} == {"readers"}
    assert sum(len(read.values) for read in observer.lists) > 100


def test_an_acknowledged_event_that_is_not_in_the_log(sent: tuple[Installation, History, Observer]) -> None:
    system, history, _ = sent
    (never,) = events(2, 1, start=10_000)
    claims = History(history.invoked | {never}, history.ok | {never})
    with pytest.raises(AssertionError, match=r"^1 lost, 0 doubled, 0 unexpected in the log, tests/faults"):
        check(system, claims)
    assert system.outcome.lost == 1


def test_an_event_that_nobody_sent(sent: tuple[Installation, History, Observer]) -> None:
    system, history, _ = sent
    with pytest.raises(AssertionError, match=r"^0 lost, 0 doubled, 1 unexpected in the log"):
        check(system, History(history.invoked - {RECORDS[7]}, history.ok - {RECORDS[7]}))


def test_what_was_seen_and_is_not_there_in_the_end(sent: tuple[Installation, History, Observer]) -> None:
    system, history, observer = sent
    grown = max(observer.lists, key=lambda read: len(read.values))
    observer.lists.append(ListRead(grown.key, grown.values[::-1], "planted"))
    with pytest.raises(AssertionError, match=r"1 anomalies seen.*'order'"):
        check(system, history, observed=[observer])
    observer.lists.pop()
    newest = max(observer.versions, key=lambda read: read.version)
    observer.versions += [VersionRead(newest.key, v, "planted") for v in (newest.version, newest.version[:-1] + "0")]
    with pytest.raises(AssertionError, match=r"went back"):
        check(system, history, observed=[observer])
    del observer.versions[-2:]


def test_an_effect_that_is_lost_and_one_that_is_there_twice(sent: tuple[Installation, History, Observer]) -> None:
    system, history, _ = sent
    first, second = system.shard_ids
    system.stop_loops()
    thing = _taken(system, first)
    with pytest.raises(AssertionError, match=r"^1 lost, 0 doubled, 0 unexpected in the shards"):
        check(system, history)
    _put(system, first, thing)
    check(system, history)
    with closing(system.stack.open_shard(second)) as shard:  # it refuses what it does not own: plant that, too
        owned = system.stack.current_map().buckets_of(second)
        fence = _fence(system, second)
        shard.own(fence.epoch, [*owned, bucket_of(thing.tenant, thing.case)])
        writer = ShardWriter(shard, system.log, fence, lambda bucket: True, block_ms=0)
        writer.apply(list(thing.registers.values()))
    with pytest.raises(AssertionError, match=r"^0 lost, 1 doubled, 0 unexpected in the shards"):
        check(system, history)
    assert (system.outcome.lost, system.outcome.doubled) == (0, 1)


def _fence(system: Installation, shard_id: str) -> Fence:
    with closing(system.stack.open_shard(shard_id)) as shard:
        cursors = shard.cursors()
    epoch = system.stack.control.shards.get(shard_id).epoch
    return Fence(epoch, max(c.lease for c in cursors.values()), tuple(sorted(cursors)))


def _taken(system: Installation, shard_id: str) -> StoredThing:
    """A thing of one register is taken away behind the writer's back."""
    with closing(system.stack.open_shard(shard_id)) as shard:
        things = (t for case in sorted(shard.cases()) for t in shard.things(*case) if len(t.registers) == 1)
        thing = next(things)
        shard.replace(_fence(system, shard_id), [(thing._replace(registers={}), None)])
    return thing


def _put(system: Installation, shard_id: str, thing: StoredThing) -> None:
    with closing(system.stack.open_shard(shard_id)) as shard:
        shard.replace(_fence(system, shard_id), [(thing, merged_record(thing, Priorities()))])
