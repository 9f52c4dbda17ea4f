"""The log gets another number of partitions: whoever reads finds what was appended before, and what comes after."""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from actors.chosen_facts import Chosen
from actors.fact_replay import FactReplay
from actors.log_damage import damage_of
from actors.log_facts import known_beside
from actors.mending import Mended, mend
from actors.rebuild import rebuild
from actors.repartition import ASKED, CHANGED, ask, change_number
from actors.stack import Stack
from cluster import batch
from cluster.config import LogSettings
from cluster.config_kafka import KafkaSettings
from cluster.errors import Conflict, Corrupt, IntelGraphError, Rejected, Unavailable
from cluster.fold import Fold
from cluster.model import floor_record
from cluster.shard_map import partition_of
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.kafka_log import KafkaEventLog
from cluster.stores.lake import LakeEntry
from cluster.stores.log import Append
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import History, Producer, entries_of, events
from tests.faults.test_lost_tail_faults import SetBack
from tests.forked import Forked
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.services]

COUNT = 600


class Numbered:
    """An installation whose log gets other numbers of partitions, while events of a sequence are sent."""

    def __init__(self, system: Installation, seed: int) -> None:
        self.system, self.records, self.sent = system, events(seed, COUNT), 0
        self.history = History()

    def send(self, share: float) -> None:
        """Append a share of the events, and some of before once more, and wait until the shards have them."""
        last = min(COUNT, self.sent + int(share * COUNT))
        found = Producer(self.system, self.records[max(0, self.sent - 20) : last], batch_records=20).send()
        self.history.ok |= found.ok
        self.history.invoked |= found.invoked
        self.sent = last
        self.system.settle()

    def set_to(self, partitions: int) -> None:
        """The settings say another number; nothing of the system works when this returns but its servers."""
        system = self.system
        system.stop_loops()
        for opened in (*system._checkpoints.values(), system.__dict__.pop("log", None), system.stack.control):
            if opened is not None:
                opened.close()
        system._checkpoints.clear()
        log = system.settings.log.model_copy(update={"partitions": partitions})
        system.settings = system.settings.model_copy(update={"log": log})
        system.stack, system.partitions = Stack(system.settings), partitions

    def change(self, partitions: int) -> Mended:
        """As `log repartition` and a start do it."""
        ask(self.system.stack, partitions, "tester")
        self.set_to(partitions)
        return self.start()

    def start(self) -> Mended:
        """What a start does about it; nothing the second time."""
        change_number(self.system.stack)
        found = mend(self.system.stack)
        assert found is not None
        assert change_number(self.system.stack) is None
        assert mend(self.system.stack) is None
        return found

    def go_on(self, lake: bool = True) -> None:
        """The loops, as after a start; until every shard and the lake have all."""
        for shard in self.system.shard_ids:
            self.system.start_writer(shard)
        if lake:
            self.system.start_lake()
            wait_until(self.is_in_lake, message="the lake has everything")
        self.system.settle()

    def is_in_lake(self) -> bool:
        """Whether the lake has every entry."""
        with self.system.stack.open_lake() as lake:
            at = lake.positions()
        return all(at.of(p).number >= end for p, end in self.system.ends().items())

    def check(self) -> None:
        """Shards are the fold of lake and log and of what was sent, and each record has one outcome, counted once: so
        the hash is that of any other number of partitions."""
        fold = check(self.system)
        assert fold.state_lines() == Fold().apply_all(self.history.ok).state_lines()

    def trim(self) -> None:
        """Take from the log what shards, saved now, and the lake have."""
        system = self.system
        for shard in system.shard_ids:
            system.checkpoint(shard)
        for partition, number in system.stack.control.positions.least().items():
            system.log.trim(partition, number + 1)


def used(done: Numbered, partitions: int) -> set[int]:
    """The partitions that the cases of these events are appended to."""
    return {partition_of(record.bucket, partitions) for record in done.records}


LONGER = [pytest.param(numbers, marks=pytest.mark.chaos) for numbers in ((8, 3), (3, 4, 3), (8, 4, 6))]


@pytest.mark.parametrize("numbers", [(4, 8, 3), *LONGER], ids=str)
def test_both_sides_of_the_change_are_read(server_root: Path, numbers: tuple[int, ...]) -> None:
    first, *later = numbers
    with Installation(server_root / f"rp{''.join(map(str, numbers))}", partitions=first) as system:
        system.start(lake=True)
        done = Numbered(system, first)
        done.send(0.3)
        for generation, number in enumerate(later, 2):
            before = system.hashes(), system.ends()
            found = done.change(number)
            assert (found.generation, found.partitions, found.facts, found.again) == (generation, number, {}, 0)
            assert found.note == (
                f"the event log has {number} partitions now: generation {generation} of it was opened (audit --actions)"
            )
            done.go_on()
            assert system.hashes() == before[0]
            assert system.ends() == {**dict.fromkeys(range(number), 0), **before[1]}, "nothing was appended"
            done.send(0.3)
            ends = system.ends()
            grown = {p for p in ends if ends[p] > before[1].get(p, 0)}
            assert grown == used(done, number), "entries go to the partitions of the new number alone"
            done.check()
        done.trim()
        ends = system.ends()
        assert {p for p, begin in system.begins().items() if begin > 1} == {p for p in ends if ends[p]}
        system.kill("shard-0")
        system.spec("shard-0").folder.joinpath("dump.rdb").unlink()
        system.restart("shard-0")
        done.send(1.0)
        done.check()
        rebuild(system.stack, "shard-1", "tester", verify=True)
        system.settle()
        done.check()
        replayed = FactReplay(system.stack, system.log).replay(Chosen(None), "tester", rate_per_s=1e6)
        assert replayed.records >= COUNT
        assert set(replayed.reached) == used(done, later[-1]), "by the number of today"
        system.settle()
        done.check()
        check(system, done.history)


def test_a_shard_that_is_behind_or_comes_back_older_reads_both_sides(server_root: Path) -> None:
    """Its checkpoint is of before the change; and it had not read all when that came."""
    with Installation(server_root / "rpo", partitions=4) as system:
        system.start()
        done = Numbered(system, 5)
        done.send(0.2)
        for shard in system.shard_ids:
            system.checkpoint(shard)
        done.send(0.2)
        system.stop_writer("shard-1")
        rows = done.records[done.sent : done.sent + 100]
        system.log.append(entries_of(rows, 4))
        done.history.ok |= set(rows)
        done.sent += 100
        done.change(6)
        done.go_on(lake=False)
        done.send(0.2)
        for shard in system.shard_ids:
            system.kill(shard)
            system.restart(shard)
        done.send(1.0)
        done.check()


def test_refused_unless_asked_for_and_every_shard_pauses(server_root: Path) -> None:
    with Installation(server_root / "rpr", partitions=4, lease_s=3.0) as system:
        system.start()
        done = Numbered(system, 6)
        done.send(0.2)
        first = system.stack.current_map()
        with pytest.raises(Rejected, match="4 partitions already"):
            ask(system.stack, 4, "tester")
        done.set_to(8)
        for _ in range(2):
            with pytest.raises(Rejected, match=r"has 4 partitions, and log\.partitions is 8.*log repartition 8"):
                change_number(system.stack)
            with pytest.raises(Rejected, match=r"has 4 partitions"):
                system.stack.open_log()
            ask(system.stack, 6, "tester")
        ask(system.stack, 8, "tester")
        system.kill("shard-1")
        with pytest.raises(Unavailable, match="shard-1"):
            change_number(system.stack)
        assert system.stack.current_map() == first
        assert mend(system.stack) is None
        system.restart("shard-1")
        assert done.start().partitions == 8
        done.go_on()
        done.send(0.2)
        done.check()
        done.set_to(4)
        with pytest.raises(Rejected, match="has 8 partitions"):
            change_number(system.stack)  # a word counts for one change
        done.set_to(8)
        assert [entry.action for entry in system.stack.control.audit.every(INSTALLATION)].count(ASKED) == 3
        assert CHANGED in {entry.action for entry in system.stack.control.audit.every(INSTALLATION)}


def test_who_worked_in_the_generation_before_is_refused(server_root: Path) -> None:
    with Installation(server_root / "rpz", partitions=8) as system:
        system.start(lake=True)
        done = Numbered(system, 7)
        done.send(0.3)
        wait_until(done.is_in_lake, message="the lake has everything")
        old, lake = system.stack.open_log(), system.stack.open_lake()
        parent = lake.positions()
        done.change(3)
        for partition in (0, 7):
            with pytest.raises(IntelGraphError):
                old.append([Append(partition, b"", 0)])
        next_entry = LakeEntry(0, parent.of(0).number + 1, batch.to_arrow([]), 1)
        with lake, pytest.raises(Conflict):
            lake.append([next_entry], parent)
        old.close()
        done.go_on()
        done.send(0.3)
        done.check()


STEPS = (("paused", 1), ("published", 1), ("fenced", 1), ("opened", 1))


def test_killed_at_every_step_and_started_again(server_root: Path, forked: Forked) -> None:
    with Installation(server_root / "rpk", partitions=4, lease_s=3.0) as system:
        system.start(lake=True)
        done = Numbered(system, 8)
        for number, (step, nth) in zip((8, 3, 5, 4), STEPS, strict=True):
            done.send(0.2)
            ask(system.stack, number, "tester")
            done.set_to(number)
            text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
            words = ("repartition", system.settings.model_dump_json(), "", "", step, str(nth))
            dead = forked.run(text, *words, timeout_s=60)
            assert dead.returncode == -signal.SIGKILL, (step, dead.stderr)
            with pytest.raises((Unavailable, Rejected)):
                system.stack.open_log()
            assert done.start().partitions == number, step
            done.go_on()
            done.check()
        done.send(1.0)
        done.check()
        check(system, done.history)


def test_cut_off_and_asked_for_another_number_before_the_next_start(server_root: Path, forked: Forked) -> None:
    with Installation(server_root / "rpc", partitions=4, lease_s=3.0) as system:
        system.start()
        done = Numbered(system, 9)
        done.send(0.3)
        ask(system.stack, 8, "tester")
        done.set_to(8)
        text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
        words = ("repartition", system.settings.model_dump_json(), "", "", "opened", "1")
        assert forked.run(text, *words, timeout_s=60).returncode == -signal.SIGKILL
        assert done.change(6).partitions == 6
        done.go_on()
        done.send(0.3)
        done.check()


@pytest.mark.parametrize("step", ["published", pytest.param("fenced", marks=pytest.mark.chaos)])
def test_cut_off_and_taken_back(server_root: Path, forked: Forked, step: str) -> None:
    """The map has had the new number, and the log never: shards read its partitions all the same."""
    with Installation(server_root / f"rp{step[:3]}", partitions=4, lease_s=3.0) as system:
        system.start(lake=True)
        done = Numbered(system, 12)
        done.send(0.3)
        ask(system.stack, 8, "tester")
        done.set_to(8)
        text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
        words = ("repartition", system.settings.model_dump_json(), "", "", step, "1")
        assert forked.run(text, *words, timeout_s=60).returncode == -signal.SIGKILL
        assert done.change(4).partitions == 4
        done.go_on()
        done.send(0.3)
        done.check()
        system.kill("log")
        system.restart("log")
        done.send(1.0)
        done.check()


def test_log_and_control_store_of_before_the_change_are_refused(server_root: Path) -> None:
    """Lake and shards have read partitions that neither knows any more."""
    with Installation(server_root / "rpn", partitions=3) as system:
        system.start(lake=True)
        done = Numbered(system, 13)
        done.send(0.3)
        first = system.stack.current_map()
        done.change(8)
        done.go_on()
        done.send(0.3)
        system.stop_loops()
        for known in (3, 8):
            older = replace(first, partitions=known, earlier=())
            with closing(system.stack.open_log()) as log:
                ends = {p: end for p, end in log.ends().items() if p < known}
            if known == 8:
                assert damage_of(system.stack, None, lambda: ends, older, all_answer=True).none  # noqa: B023
                continue
            with pytest.raises(Corrupt, match=r"know 3.*log repartition N"):
                damage_of(system.stack, None, lambda: ends, older, all_answer=True)  # noqa: B023


@pytest.mark.parametrize("numbers", [(4, 8), pytest.param((8, 3), marks=pytest.mark.chaos)], ids=str)
def test_a_log_of_before_the_change_is_given_back(server_root: Path, numbers: tuple[int, int]) -> None:
    """Its files are set back to before it got its number: it gets that again, and what lake and shards have."""
    first, second = numbers
    with Installation(server_root / f"rpb{first}{second}", partitions=first) as system:
        system.start(lake=True)
        done = Numbered(system, 10)
        done.send(0.3)
        files = SetBack(system, 10)
        files.copy()
        done.send(0.2)
        done.change(second)
        done.go_on()
        done.send(0.2)
        wait_until(done.is_in_lake, message="the lake has everything")
        system.stop_lake()
        done.send(0.2)  # in shards alone
        before = system.hashes()
        files.set_back()
        found = mend(system.stack)
        assert found is not None
        assert (found.partitions, found.generation) == (second, 3)
        assert found.again > 0
        assert 0 < sum(found.facts.values()) <= 0.2 * COUNT + 20, "what lake and log have under either number is known"
        done.set_to(second)
        done.go_on()
        assert system.hashes() == before
        done.send(1.0)
        done.check()


def on_kafka(folder: Path, broker: KafkaBroker, partitions: int) -> Installation:
    """An installation whose log is on that broker."""
    if not broker.running:
        broker.start()
    kafka = KafkaSettings(bootstrap=broker.bootstrap, replication_factor=1, min_in_sync=1, topic_prefix=folder.name)
    log = LogSettings(kind="kafka", kafka=kafka, partitions=partitions, block_ms=50, timeout_s=5.0, read_entries=8)
    return Installation(folder, partitions=partitions, log=log)


@pytest.mark.production
def test_cut_off_once_the_topic_had_more_and_taken_back(server_root: Path, mortal_kafka: KafkaBroker) -> None:
    with on_kafka(server_root / "rpt", mortal_kafka, 4) as system:
        system.start(lake=True)
        done = Numbered(system, 14)
        done.send(0.3)
        ask(system.stack, 8, "tester")
        done.set_to(8)
        change_number(system.stack)
        with closing(system.stack.open_log(mending=True)) as log:
            assert isinstance(log, KafkaEventLog)
            log._run(log._client.add_partitions(log._current.topic.name, 8))
        assert done.change(4).partitions == 4
        done.go_on()
        done.send(1.0)
        done.check()


def test_a_floor_beside_does_not_count_as_known(server_root: Path) -> None:
    """A shard may read the one partition and not the other: a floor has to be in each."""
    with Installation(server_root / "rpf", partitions=8) as system:
        system.start_servers()
        current = replace(system.stack.current_map(), earlier=(4,))
        assert current.partitions_beside(7) == (3, 7)
        fact = next(record for record in events(15, COUNT) if record.bucket % 8 == 7)
        floor = floor_record(fact.tenant, fact.source, fact.type, fact.version, 3)
        system.log.append(entries_of([fact, floor], 4))
        assert known_beside(system.log, None, current, 7)["kind"].to_list() == [fact.kind]
        assert known_beside(system.log, None, current, 3)["kind"].to_list() == [fact.kind, floor.kind]


@pytest.mark.production
@pytest.mark.parametrize("numbers", [(4, 8), (8, 3)], ids=str)
def test_what_an_appender_of_before_appends_on_kafka_is_read(
    server_root: Path, mortal_kafka: KafkaBroker, numbers: tuple[int, int]
) -> None:
    """Brokers cannot refuse it once the generation is open: it appends by the number that it knows."""
    first, second = numbers
    with on_kafka(server_root / f"rpl{first}{second}", mortal_kafka, first) as system:
        system.start(lake=True)
        done = Numbered(system, 11)
        done.send(0.3)
        with closing(system.stack.open_log()) as old:
            done.change(second)
            rows = done.records[done.sent : done.sent + 100]
            old.append(entries_of(rows, first))
        done.history.ok |= set(rows)
        done.sent += 100
        done.go_on()
        done.check()
        done.send(0.2)
        done.trim()
        rebuild(system.stack, "shard-0", "tester", verify=True)
        system.settle()
        done.check()
