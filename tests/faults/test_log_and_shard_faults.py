"""Rows 4, 5, 6, 8, 12 and 22 of the fault list on real servers: log and shards killed, stopped, cut off, set back."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cluster import dialect_shard
from cluster.databases import FALKORDB
from cluster.errors import OutcomeUnknown
from cluster.ids import BUCKETS
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from tests.fault_proxy import ANSWER_LOST, Direction, FaultProxy, Faults
from tests.faults.checks import check
from tests.faults.conftest import Install
from tests.faults.harness import Installation, wait_until
from tests.faults.measures import lag_s
from tests.faults.observer import Observer
from tests.faults.producer import Producer, events
from tests.faults.questions import Questions
from tests.faults.reader import Reader
from tests.faults.seeds import is_long, on_stacks, seeds

pytestmark = [pytest.mark.services]


def size(seed: int, short: int = 1) -> int:
    """Events of a run: the long runs of `make chaos` have more."""
    return 20_000 if is_long(seed, short) else 2_000


_SENT_S = 120.0
"""How fast a producer sends is the machine's affair; that it goes on is waited for."""


def paced(producer: Producer, share: float) -> None:
    """Waits until a share of the events is acknowledged."""
    total = producer.total
    wait_until(lambda: producer.sent >= share * total, _SENT_S, f"{share:.0%} of {total} sent")


@pytest.mark.parametrize(("stack", "seed"), on_stacks(1, 10))
def test_log_killed_stopped_and_started_again(install: Install, stack: str, seed: int) -> None:
    """Row 4: the log's server killed and started again, then stopped for 20 s."""
    records = events(seed, size(seed))
    with install(f"lk{seed}") as system:
        system.start()
        with Observer(system, records) as observer:
            producer = Producer(system, records, rate_per_s=LOG_RATES_PER_S[stack]).start()
            paced(producer, 0.2)
            healed(system, producer, seed)  # a Neo4j that has just started is behind by then
            system.kill("log")
            system.restart("log")
            healed(system, producer, seed)
            paced(producer, 0.5)
            system.pause("log")
            sent = producer.sent
            time.sleep(1.0 if seed == 1 else 20.0)  # how long the fault lasts, nothing is waited for here
            assert producer.sent <= sent + 50
            system.resume("log")
            healed(system, producer, seed)
            history = producer.join(system.deadline_s)
            system.settle()
            wait_until(lambda: bool(observer.lists and observer.versions), message="somebody has looked")
        check(system, history, observed=[observer])


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_log_that_refuses_connections(server_root: Path, seed: int) -> None:
    """Row 4: connections end, within an answer or between two, and new ones are refused for a while."""
    rnd = random.Random(seed)
    with Installation(server_root / f"lr{seed}") as system:
        system.start_servers()
        system.log.close()
        del system.log  # it is not behind the proxy
        with system.behind_proxy("log") as proxy:
            for shard in system.shard_ids:
                system.start_writer(shard)
            producer = Producer(system, events(seed, size(seed)), rate_per_s=LOG_RATES_PER_S["embedded"]).start()
            for share in (0.2, 0.5):
                paced(producer, share)
                cut = Direction(cut_after_bytes=rnd.randrange(200))
                proxy.set(Faults(to_client=cut, refuse=True, reset=rnd.random() < 0.5))
                proxy.cut()
                refused = producer.refused
                wait_until(lambda refused=refused: producer.refused > refused)  # type: ignore[misc]
                time.sleep(0.5 if seed == 1 else rnd.uniform(1, 10))  # how long the fault lasts
                proxy.heal()
                healed(system, producer, seed)
            history = producer.join()
            system.settle()
            check(system, history)
            system.stop_loops()
            system.log.close()


LOG_RATES_PER_S = {"embedded": 1_000, "production": 200}
"""So that events come in all the time while the log is at fault, and until what waited is applied: with broker, two
Neo4j and all actors on a few cores, a shard that was started a minute ago takes a few hundred a second."""


def healed(system: Installation, producer: Producer, seed: int) -> None:
    """What was sent is in the shards within 5 s again, 30 s after a fault at most, while more comes in."""
    if is_long(seed):
        assert producer.sent < producer.total, "nothing comes in any more: slow the producer down"
        wait_until(lambda: lag_s(system, producer) < 5.0, deadline_s=30.0, message="lag below 5 s")


@pytest.mark.parametrize(("stack", "seed"), on_stacks(2, 10))
def test_shard_killed_mid_batch(install: Install, stack: str, seed: int) -> None:
    """Row 5: a shard killed ten times comes back older, heals and serves nothing stale; the other one goes on. A Neo4j
    that starts takes every core that others have, so there they have to answer, in whatever time."""
    long, records = is_long(seed, short=2), events(seed, size(seed, short=2))
    with install(f"sk{seed}") as system, Reader(system, system.shard_ids[0]) as reader:
        system.start()
        system.settle()  # the first start lets nobody in either, and is not what is asked about
        rnd = random.Random(seed)
        victim, other = system.shard_ids
        producer = Producer(system, records, rate_per_s=RATES_PER_S[stack] if long else None).start()
        with Questions(system, other) as asked, Observer(system, records) as observer:
            for n in range(10 if long else 3):
                with asked.marked("calm"):
                    paced(producer, (n + rnd.random()) / (11 if long else 4))
                    if n % 2 == 0:
                        system.checkpoint(victim)
                    wait_until(lambda: sum(system.positions(victim).values()) > 0)
                    enough = (n + 1) * ANSWERS // 10 if long else 0
                    wait_until(lambda enough=enough: asked.answers("calm") >= enough)
                with asked.marked("fault"):
                    system.kill(victim)
                    if n == 0:
                        paced(producer, 0.15 if long else 0.4)
                        system.settle_partly(other)
                    ends = system.ends()
                    mine = system.stack.current_map().partitions_of(victim)
                    system.restart(victim)
                    reader.expect({p: ends[p] for p in mine})
                    wait_until(lambda: system.writers[victim].status.ready, system.deadline_s, f"{victim} serves again")
            history = producer.join(system.deadline_s)
            system.settle()
        assert reader.stale == []
        assert reader.served
        assert asked.failed == [], "a shard that was not killed did not answer"
        if long:
            assert min(asked.answers("calm"), asked.answers("fault")) >= ANSWERS
            assert stack != "embedded" or asked.p95_s("fault") <= 2 * asked.p95_s("calm")
        check(system, history, observed=[observer])


ANSWERS = 100
"""So many of each kind are compared, however far behind the producer is on a busy machine."""
RATES_PER_S = {"embedded": 800, "production": 150}
"""So that events come in until the last of ten kills: a Neo4j takes longer to start."""


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_answer_lost_after_the_commit(server_root: Path, seed: int) -> None:
    """Row 6: the shard has done it, and its answer never comes: to a write, or to the commit that moves the cursor.
    The next writer finds it done."""
    rnd, turns = random.Random(seed), 20 if is_long(seed) else 8
    with Installation(server_root / f"al{seed}") as system:
        system.start_servers()
        with system.behind_proxy("shard-0") as proxy:
            for shard in system.shard_ids:
                system.start_writer(shard)
            producer = Producer(system, events(seed, size(seed)), rate_per_s=1_000 if is_long(seed) else 500)
            producer.free(1 / (turns + 1))
            producer.start()
            for turn in range(turns):
                paced(producer, (turn + rnd.random()) / (turns + 1))
                lost = proxy.answers_lost
                if commit := turn % 2 == 0:
                    proxy.set(Faults(lose_answer_to=COMMIT))
                else:
                    proxy.set(Faults(to_client=Direction(cut_after_bytes=rnd.randrange(1_000))))
                producer.free((turn + 2) / (turns + 1))  # else a writer that has all never asks its shard
                wait_until(lambda: system.writers["shard-0"].status.state == "waiting", message="the answer is lost")
                proxy.heal()
                assert proxy.answers_lost > lost or not commit
                wait_until(lambda: system.writers["shard-0"].status.state == "running", message="a next writer")
            history = producer.join()
            system.settle()
            assert sum(c.duplicate for c in _cursors(system, "shard-0")) > 0, "nothing had been done before the cut"
            check(system, history)
            system.stop_loops()


COMMIT = dialect_shard.advance(FALKORDB)[-60:].encode()
"""What only the query that moves cursors holds."""


def _cursors(system: Installation, shard: str) -> list[Any]:
    opened = system.stack.open_shard(shard)
    try:
        return list(opened.cursors().values())
    finally:
        opened.close()


def test_a_lost_answer_is_an_unknown_outcome(server_root: Path) -> None:
    with Installation(server_root / "ao", shards=1) as system:
        system.start_servers()
        server = system.running["shard-0"]
        with FaultProxy.unix(server.socket, server_root / "ao" / "p.sock") as proxy:
            shard = FalkorShard(FalkorClient(f"unix://{proxy.address}", server.password, timeout_s=5))
            shard.prepare()
            proxy.set(ANSWER_LOST)
            epoch = system.stack.control.shards.get("shard-0").epoch
            with pytest.raises(OutcomeUnknown):
                shard.own(epoch, range(BUCKETS))
            proxy.heal()
            state = shard.state()
            assert state is not None
            assert len(state.owned) == BUCKETS
            shard.close()


@pytest.mark.parametrize(("stack", "seed"), on_stacks(1, 10))
def test_every_event_three_times_reordered_and_the_topic_replayed(install: Install, seed: int) -> None:
    """Row 8: every event three times, reordered, and all of them replayed: the same hash, and the replay writes
    nothing."""
    rnd = random.Random(seed)
    once = events(seed, size(seed))
    thrice = [r for r in once for _ in range(3)]
    order = sorted(range(len(thrice)), key=lambda i: i + rnd.uniform(0, 100))
    with install(f"r3{seed}") as system:
        system.start()
        first = Producer(system, [thrice[i] for i in order], batch_records=200).send()
        system.settle()
        fold = check(system, first)
        assert len(fold.export_lines()) > 50
        hashes = system.hashes()
        applied = sum(c.applied for s in system.shard_ids for c in _cursors(system, s))
        again = Producer(system, [thrice[i] for i in order], batch_records=200).send()
        system.settle()
        assert system.hashes() == hashes
        assert sum(c.applied for s in system.shard_ids for c in _cursors(system, s)) == applied
        check(system, first, again)


_WRITER = """
import sys
from tests.faults.harness import Installation
from pathlib import Path
from actors.shard_writer_actor import ShardWriterLoop
system = Installation(Path(sys.argv[1]))
loop = ShardWriterLoop(system.stack, "shard-0")
print("ready", flush=True)
loop.run()
"""


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_zombie_writer_stopped_past_its_lease(server_root: Path, seed: int) -> None:
    """Row 12: another writer took over; the one that continues is refused by the shard, or harmless."""
    folder = server_root / f"zo{seed}"
    with Installation(folder) as system:
        system.start_servers()
        system.start_writer("shard-1")
        zombie = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder)],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            producer = Producer(system, events(seed, size(seed))).start()
            wait_until(lambda: sum(system.positions("shard-0").values()) > 3)
            lease = max(c.lease for c in _cursors(system, "shard-0"))
            _stop_outside_transactions(zombie.pid, system.stack.state_dir / "control.db")
            system.recording.mark("writer of shard-0 stopped")
            system.start_writer("shard-0")
            wait_until(lambda: max(c.lease for c in _cursors(system, "shard-0")) > lease)
            paced(producer, 0.7)
            os.kill(zombie.pid, signal.SIGCONT)
            system.recording.mark("the stopped writer goes on")
            history = producer.join()
            system.settle()
            zombie.kill()
            zombie.wait(10)
            system.settle()
            check(system, history)
        finally:
            zombie.kill()
            zombie.communicate()


def _stop_outside_transactions(pid: int, database: Path) -> None:
    """SIGSTOP, but not while the process has the lock of SQLite: everybody would wait for that, not for its lease."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=0.2, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                other.execute("ROLLBACK")
                return


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_shard_set_back_emptied_and_the_log_trimmed_meanwhile(server_root: Path, seed: int) -> None:
    """Row 22: an older checkpoint under a running system, then an empty disk; the log begins later than both."""
    with Installation(server_root / f"sb{seed}") as system, Reader(system, "shard-0") as reader:
        system.start(lake=True)
        records = events(seed, size(seed))
        third = len(records) // 3
        histories = [Producer(system, records[:third]).send()]
        system.settle()
        system.checkpoint("shard-0")
        old = server_root / f"sb{seed}" / "old.rdb"
        shutil.copy(system.spec("shard-0").dump_file, old)
        histories.append(Producer(system, records[third : 2 * third]).send())
        system.settle()
        trimmed_to = _trim(system)
        assert all(system.begins()[p] > 1 for p in trimmed_to)
        for restore in (old, None):
            system.kill("shard-0")
            system.spec("shard-0").dump_file.unlink()
            if restore is not None:
                shutil.copy(restore, system.spec("shard-0").dump_file)
            ends = system.ends()
            system.restart("shard-0")
            reader.expect({p: ends[p] for p in system.stack.current_map().partitions_of("shard-0")})
            served = reader.served
            system.settle()
            wait_until(lambda served=served: reader.served > served)  # type: ignore[misc]
            check(system, *histories)
        histories.append(Producer(system, records[2 * third :]).send())
        system.settle()
        assert reader.stale == []
        assert reader.refused
        check(system, *histories)


def _trim(system: Installation) -> list[int]:
    """Makes everything durable and waits until the lake's loop has trimmed the log; the partitions that had entries."""
    for shard in system.shard_ids:
        system.checkpoint(shard)
    ends = system.ends()
    used = [p for p, end in ends.items() if end]
    wait_until(lambda: all(system.begins()[p] == ends[p] + 1 for p in used), message="the log is trimmed")
    return used
