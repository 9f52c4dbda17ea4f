"""The log's files are set back under shards and lake that are ahead of it: made good at the next start, or refused."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from actors.mending import ACCEPTED, MENDED, OPENED, LostForGood, Mended, accept_loss, mend
from actors.push import Push, PushAnswer
from actors.shard_writer import ShardWriter
from actors.stages.route import entries_of
from cluster import batch
from cluster.embedded import ensure
from cluster.errors import Conflict, IntelGraphError, Unavailable
from cluster.fold import Fold
from cluster.model import Kind, Record, floor_record, priority_record
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.graph import Fence
from cluster.stores.lake import LakeEntry, Positions
from cluster.stores.log import Append, EventLog, LogLostTail
from cluster.stores.shard_export import state_lines
from serve_apps.before_serving import check_before_serving_again
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import History, Producer, events
from tests.forked import Forked
from tests.strategies import make

pytestmark = [pytest.mark.services]

COUNT = 600


class SetBack:
    """A log of which a copy was taken after a part of the events, and which is set back to it later."""

    def __init__(self, system: Installation, seed: int) -> None:
        self.system, self.records = system, events(seed, COUNT)
        self.history = History()
        self._copies: list[Path] = []

    def send(self, first: int, last: int) -> None:
        """Append events of the sequence and wait until the shards have them."""
        found = Producer(self.system, self.records[first:last], batch_records=20).send()
        self.history.ok |= found.ok
        self.history.invoked |= found.invoked
        self.system.settle()

    def copy(self) -> None:
        """Take a copy of the log's files; fsynced at each append, so it is one of that moment."""
        files = self.system.spec("log").folder / "appendonlydir"
        self._copies.append(files.with_name(f"copy{len(self._copies)}"))
        shutil.copytree(files, self._copies[-1])

    def set_back(self, copy: int = 0) -> None:
        """As a crash, and older files; nothing of the system works when this returns but its servers."""
        system = self.system
        system.stop_loops()
        self.reopen()
        system.kill("log")
        files = system.spec("log").folder / "appendonlydir"
        shutil.rmtree(files)
        shutil.copytree(self._copies[copy], files)
        system.restart("log")

    def reopen(self) -> None:
        """What the harness asks the log from now on goes over a connection that knows its newest generation."""
        if (log := self.system.__dict__.pop("log", None)) is not None:
            log.close()

    def go_on(self, lake: bool = True) -> None:
        """The loops, as after a start; until every shard and the lake have all."""
        system = self.system
        self.reopen()
        for shard in system.shard_ids:
            system.start_writer(shard)
        if lake:
            self.run_lake()
        system.settle()

    def run_lake(self) -> None:
        """The lake's loop, until it has everything."""
        self.system.start_lake()
        wait_until(self.is_in_lake, message="the lake has everything")

    def is_in_lake(self) -> bool:
        """Whether the lake has every entry."""
        with self.system.stack.open_lake() as lake:
            at = lake.positions()
        return all(at.of(p).number >= end for p, end in self.system.ends().items())

    def check(self) -> None:
        """Shards are the fold of lake and log, counts are those of lake and log, and no acknowledged fact is lost."""
        fold = check(self.system)
        assert fold.state_lines() == Fold().apply_all(self.history.ok).state_lines()

    def said(self, action: str) -> list[dict[str, object]]:
        """Details of what the audit has of an action."""
        entries = self.system.stack.control.audit.every(INSTALLATION)
        return [entry.detail for entry in entries if entry.action == action]


@contextmanager
def half_sent(folder: Path, seed: int, lake: bool) -> Iterator[SetBack]:
    """A copy of the log with a third of the events in it; then the second third is in shards, and in the lake if it is
    wanted there too."""
    with Installation(folder, lease_s=1.0) as system:
        system.start()
        done = SetBack(system, seed)
        done.send(0, COUNT // 3)
        done.run_lake()
        done.copy()
        if not lake:
            system.stop_lake()
        done.send(COUNT // 3, 2 * COUNT // 3)
        if lake:
            wait_until(done.is_in_lake, message="the lake has everything")
        yield done


def mended(done: SetBack) -> Mended:
    found = mend(done.system.stack)
    assert found is not None
    return found


def test_what_the_lake_has_comes_back_number_for_number(server_root: Path) -> None:
    with half_sent(server_root / "ltl", 1, lake=True) as done:
        before = done.system.log_records(), done.system.ends(), done.system.hashes()
        done.set_back()
        assert done.system.ends() != before[1]
        found = mended(done)
        assert (found.generation, found.empty, found.facts) == (2, 0, {})
        assert found.again == sum(before[1].values()) - sum(seam.end for seam in found.seams.values()) > 5
        done.reopen()
        assert (done.system.log_records(), done.system.ends()) == before[:2]
        assert mend(done.system.stack) is None
        done.go_on()
        assert done.system.hashes() == before[2]
        done.send(2 * COUNT // 3, COUNT)
        done.check()
        check(done.system, done.history)
        assert [one["generation"] for action in (OPENED, MENDED) for one in done.said(action)] == [2, 2]


def test_facts_that_shards_alone_have_are_said_again(server_root: Path) -> None:
    with half_sent(server_root / "lts", 2, lake=False) as done:
        system = done.system
        before, cursors = system.hashes(), {s: system.positions(s) for s in system.shard_ids}
        for shard in system.shard_ids:
            system.checkpoint(shard)
        done.set_back()
        found = mended(done)
        assert found.again == 0
        assert found.empty > 5
        assert sum(found.facts.values()) > 50
        ends = system.ends()
        for shard, at in cursors.items():
            for partition in system.stack.current_map().partitions_of(shard):
                seam = found.seams[partition]
                assert seam.resumed == at[partition] + 1
                assert ends[partition] > seam.resumed
        done.go_on()
        assert system.hashes() == before
        done.send(2 * COUNT // 3, COUNT)
        done.check()
        for shard in system.shard_ids:  # its checkpoint is of before: it stands among lost entries once more
            system.kill(shard)
            system.restart(shard)
        system.settle()
        done.check()


def test_floors_priorities_and_overlays_of_shards_alone(server_root: Path) -> None:
    with half_sent(server_root / "ltf", 11, lake=False) as done:
        system = done.system
        version = next(record.version for record in done.records[COUNT // 2 :] if record.source == "feed")
        said = [(p, floor_record("tenant-0", "feed", "", version, p)) for p in system.ends()]
        said += [(p, priority_record("tenant-1", "feed", 7, 1, p)) for p in system.ends()]
        rank = make("tenant-2", "case-0", Kind.ENTITY, "person", "1", "overlay/pagerank", 1, props='{"rank":1}')
        said.append((rank.bucket % system.partitions, rank))
        system.log.append([entry for p, record in said for entry in entries_of(p, [record], 1 << 20)])
        done.history.ok |= {record for _, record in said}
        system.settle()
        before = system.hashes()
        done.set_back()
        assert mended(done).facts["tenant-2/overlay/pagerank"] == 1
        done.go_on()
        assert system.hashes() == before
        done.check()
        assert sum('"kind":"floor"' in line or '"kind":"priority"' in line for line in lines_of(system)) == 2


def test_set_back_twice_and_before_the_first_generation(server_root: Path) -> None:
    with half_sent(server_root / "ltt", 3, lake=False) as done:
        done.set_back()
        assert mended(done).generation == 2
        done.go_on()
        done.send(2 * COUNT // 3, 5 * COUNT // 6)
        wait_until(done.is_in_lake)
        done.copy()
        done.send(5 * COUNT // 6, COUNT)
        wait_until(done.is_in_lake)
        done.set_back(1)
        assert mended(done).generation == 3
        done.go_on()
        done.check()
        done.set_back(0)
        found = mended(done)
        assert found.generation == 4
        assert found.facts == {}
        done.go_on()
        done.check()


STEPS = (("fenced", 1), ("opened", 1), ("again", 1), ("again", 3), ("empty", 1), ("facts", 1), ("facts", 3),
         ("audited", 1))  # fmt: skip


@pytest.mark.slow
def test_killed_at_every_step_and_said_again(server_root: Path, forked: Forked) -> None:
    """A part of what is lost is in the lake, and a part in shards alone."""
    with half_sent(server_root / "ltk", 4, lake=True) as done:
        system = done.system
        system.stop_lake()
        done.send(2 * COUNT // 3, COUNT)
        before = system.hashes()
        for step, nth in STEPS:
            done.set_back()
            text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
            words = ("mend", system.settings.model_dump_json(), "", "", step, str(nth))
            dead = forked.run(text, *words, timeout_s=60)
            assert dead.returncode == -signal.SIGKILL, (step, nth, dead.stderr)
            if step not in ("fenced",):
                with pytest.raises(Unavailable, match="being opened"):
                    system.stack.open_log()
            assert mended(done).generation >= 2
            done.go_on(lake=False)
            assert system.hashes() == before, (step, nth)
            done.check()


def test_a_push_that_was_promised_a_lost_entry_is_taken_again(server_root: Path) -> None:
    with half_sent(server_root / "ltp", 12, lake=True) as done:
        system, stack = done.system, done.system.stack
        stack.control.sources.register("tenant-0", "feed", time.time())
        body = b'[{"case": "c", "kind": "entity", "op": "upsert", "type": "person", "id": "late"}]'

        def push(log: EventLog) -> PushAnswer:
            found = Push(stack.control, log, stack.settings)
            return found.push("tenant-0", ["feed"], body, "application/json", "key", "feed")

        system.stop_loops()
        first = push(system.log)  # read by nobody
        assert (push(system.log).positions, push(system.log).replayed) == (first.positions, True)
        done.set_back()
        mended(done)
        done.go_on()
        again = push(system.log)
        assert (again.accepted, again.replayed) == (1, False)
        system.settle()
        assert any('"late"' in line for line in lines_of(system))


def test_what_nobody_holds_wants_a_word(server_root: Path) -> None:
    with half_sent(server_root / "ltn", 5, lake=True) as done:
        system, stack = done.system, done.system.stack
        first, further = 0, system.ends()[0] + 3
        stack.control.positions.report_durable("gone", {first: further}, time.time())
        done.set_back()
        ends, generation = system.ends(), system.log.identity.generation
        for _ in range(2):
            with pytest.raises(LostForGood, match=f"accept-loss 0:{further - 2}-{further}`") as told:
                mend(stack)
        assert (system.ends(), system.log.identity.generation) == (ends, generation)
        accept_loss(stack, f"0:{further - 2}-{further - 1}", "ann")
        with pytest.raises(LostForGood):
            mend(stack)
        accept_loss(stack, told.value.lost, "ann")
        found = mended(done)
        assert (found.empty, found.seams[first].resumed) == (4, further + 1)
        assert [one["lost"] for one in done.said(OPENED)] == [told.value.lost]
        assert len(done.said(ACCEPTED)) == 2
        stack.control.positions.remove("gone")
        done.go_on()
        done.check()


def test_a_shard_that_comes_back_older_while_its_facts_are_said_again(server_root: Path, forked: Forked) -> None:
    """It was saved before the facts that it held alone."""
    with half_sent(server_root / "lto", 10, lake=False) as done:
        system = done.system
        done.set_back()
        at = system.positions("shard-0")
        text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
        words = ("mend", system.settings.model_dump_json(), "", "", "opened", "1")
        assert forked.run(text, *words, timeout_s=60).returncode == -signal.SIGKILL
        system.kill("shard-0")
        system.restart("shard-0")
        with pytest.raises(LostForGood) as told:
            mend(system.stack)
        lost = [f"{p}:{1}-{n}" for p, n in at.items()]
        assert {one.partition("-")[2] for one in told.value.lost.split(",")} == {one.partition("-")[2] for one in lost}
        accept_loss(system.stack, told.value.lost, "ann")
        mended(done)
        done.go_on()
        check(system)


def test_a_shard_that_does_not_answer_is_waited_for(server_root: Path) -> None:
    with half_sent(server_root / "lta", 6, lake=False) as done:
        done.system.checkpoint("shard-0")
        done.system.checkpoint("shard-1")
        done.set_back()
        done.system.kill("shard-1")
        with pytest.raises(Unavailable, match=r"shard-1, which may hold what is lost, does not answer"):
            mend(done.system.stack)
        done.system.restart("shard-1")
        mended(done)
        done.go_on()
        done.check()


def test_who_worked_in_the_generation_before_is_refused(server_root: Path) -> None:
    with half_sent(server_root / "ltz", 7, lake=True) as done:
        stack = done.system.stack
        with stack.open_lake() as lake:
            parent = lake.positions()
        done.set_back()
        old = stack.open_log()
        mended(done)
        with pytest.raises(IntelGraphError):
            old.append([Append(0, b"", 0)])
        old.close()
        with stack.open_lake() as lake, pytest.raises(Conflict):
            lake.append(_following(parent), parent)
        done.go_on()
        done.check()


def _following(parent: Positions) -> list[LakeEntry]:
    return [LakeEntry(0, parent.of(0).number + 1, batch.to_arrow([]), 1)]


def test_nobody_is_let_into_a_log_that_loses_its_tail_while_others_work(server_root: Path) -> None:
    with half_sent(server_root / "ltw", 8, lake=True) as done:
        system = done.system
        assert mend(system.stack) is None
        spec = system.spec("log")
        check_ok = check_before_serving_again(system.stack, spec)
        assert check_ok is not None
        done.set_back()
        system.kill("log")
        with pytest.raises(LogLostTail):
            ensure(spec, check_ok)
        with pytest.raises(Unavailable):
            system.stack.open_log()
        system.restart("log")
        mended(done)
        system.kill("log")
        system.running["log"] = ensure(spec, check_ok)
        done.go_on()
        done.check()


def lines_of(system: Installation) -> list[str]:
    shards = system.opened()
    try:
        return state_lines(shards)
    finally:
        for shard in shards:
            shard.close()


def test_a_batch_that_was_written_before_its_cursor_moved_is_said_again(server_root: Path) -> None:
    """The shard has facts of entries that its cursor has not reached, and the log has lost them."""
    with half_sent(server_root / "ltb", 9, lake=True) as done:
        system = done.system
        extra = _beyond_cursor(system, done.records[-1])
        before = lines_of(system)
        done.set_back()
        assert sum(mended(done).facts.values()) == 1
        done.go_on()
        assert lines_of(system) == before
        check(system)
        assert any(extra == r for _, _, rows in system.log_records() for r in rows)


def _beyond_cursor(system: Installation, record: Record) -> Record:
    owner = system.stack.current_map().owners[record.bucket]
    system.stop_loops()
    with closing(system.stack.open_shard(owner)) as shard:
        lease = max(c.lease for c in shard.cursors().values())
        epoch = system.stack.control.shards.get(owner).epoch
        fence = Fence(epoch, lease, system.stack.current_map().partitions_of(owner))
        ShardWriter(shard, system.log, fence, lambda bucket: True, block_ms=0).apply([record])
    return record
