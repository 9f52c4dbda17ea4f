"""Facts are replayed into the running system: nothing changes where they are, what is lacking comes back."""

from __future__ import annotations

import random
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from actors import replay_place
from actors.chosen_facts import Chosen
from actors.fact_replay import FactReplay, Replayed
from cluster.config import LakeSettings
from cluster.errors import Rejected
from cluster.model import Kind, Record
from cluster.stores.control_audit import INSTALLATION
from cluster.versions import decode
from tests.faults.checks import check
from tests.faults.dying import QUICK
from tests.faults.harness import Installation
from tests.faults.producer import History, Producer, events
from tests.faults.test_log_and_shard_faults import _trim
from tests.faults.test_rebuild_faults import filled, take_register
from tests.forked import Forked

pytestmark = [pytest.mark.services]

EVERYTHING = Chosen(None)


def replay(system: Installation, chosen: Chosen, rate_per_s: float = 1e6, dry_run: bool = False) -> Replayed:
    """A replay in batches of 100."""
    system.stack.settings = system.settings.model_copy(update={"ingest": QUICK})
    return FactReplay(system.stack, system.log).replay(chosen, "tester", rate_per_s=rate_per_s, dry_run=dry_run)


def in_log(system: Installation) -> list[Record]:
    return [r for _, _, rows in system.log_records() for r in rows]


def applied(system: Installation) -> int:
    shards = system.opened()
    try:
        return sum(c.applied for shard in shards for c in shard.cursors().values())
    finally:
        for shard in shards:
            shard.close()


def test_twice_between_live_writes_and_the_hash_is_the_same(server_root: Path) -> None:
    with filled(server_root / "pt") as (system, history):
        before, had = in_log(system), applied(system)
        asked = replay(system, EVERYTHING, dry_run=True)
        assert in_log(system) == before, "a dry run appends nothing"
        done = replay(system, EVERYTHING)
        assert (done.records, done.by_source, done.by_type) == (asked.records, asked.by_source, asked.by_type)
        assert done.records == len(set(before)) == sum(done.by_source.values())
        system.settle()
        assert applied(system) == had, "a replay writes nothing"
        _trim(system)
        live = Producer(system, events(9, 1_000, start=10_000), rate_per_s=500).start()
        again = replay(system, EVERYTHING, rate_per_s=1_000)
        assert again.records >= done.records, "what the first replay appended counts once"
        assert again.records <= done.records + live.sent
        sent = live.join()
        system.settle()
        check(system, history, sent)


def test_one_source_one_key_one_range(server_root: Path) -> None:
    with filled(server_root / "po", count=1_000) as (system, history):
        facts = set(in_log(system))
        thing = min(r for r in facts if r.kind == Kind.ENTITY and r.tenant == "tenant-2")
        chosen = [
            (Chosen("tenant-0"), lambda r: r.tenant == "tenant-0"),
            (Chosen("tenant-0", "feed"), lambda r: (r.tenant, r.source) == ("tenant-0", "feed")),
            (Chosen("tenant-1", "crm", first=(100,), last=(300,)),
             lambda r: (r.tenant, r.source) == ("tenant-1", "crm") and 100 <= _number(r) <= 300),
            (Chosen(thing.tenant, case=thing.case, type=thing.type, id=thing.id),
             lambda r: (r.tenant, r.case, r.type, r.id) == (thing.tenant, thing.case, thing.type, thing.id)),
            (Chosen("tenant-9"), lambda r: False),
        ]  # fmt: skip
        for one, wanted in chosen:
            ends = system.ends()
            done = replay(system, one)
            new = [r for p, n, rows in system.log_records() if n > ends[p] for r in rows]
            assert sorted(new) == sorted(r for r in facts if wanted(r)), one
            assert done.records == len(new)
        system.settle()
        check(system, history)
        said = system.stack.control.audit.list("tenant-0", action="facts.replay")
        assert [entry.detail.get("source") for entry in said] == [None, "feed"]


def _number(record: Record) -> int:
    return decode(record.version)[1][0]


def test_a_range_of_time_from_lake_and_log(server_root: Path) -> None:
    with Installation(server_root / "pm") as system:
        system.start(lake=True)
        records, histories, times = events(4, 900), list[History](), list[int]()
        for part in (records[:300], records[300:600], records[600:]):
            times.append(time.time_ns() // 1_000_000)
            histories.append(Producer(system, part).send())
            time.sleep(0.02)  # so that no two parts are of one millisecond
            if len(times) == 2:
                system.settle()
                _trim(system)
        for since, until, count in ((0, None, 900), (0, 1, 300), (1, 2, 300), (1, None, 600), (2, None, 300)):
            chosen = Chosen(None, since_ms=times[since], until_ms=None if until is None else times[until])
            assert replay(system, chosen, dry_run=True).records == count
        ends = system.ends()
        replay(system, Chosen(None, since_ms=times[1], until_ms=times[2]))
        assert sorted(r for p, n, rows in system.log_records() if n > ends[p] for r in rows) == sorted(records[300:600])
        system.settle()
        check(system, *histories)


def test_a_register_that_was_taken_away_comes_back_by_its_key(server_root: Path) -> None:
    with filled(server_root / "pb") as (system, history):
        before = system.hashes()
        taken = take_register(system, "shard-0")
        assert system.hashes() != before
        replay(system, Chosen(taken.tenant, case=taken.case, type=taken.type, id=taken.id))
        system.settle()
        assert system.hashes() == before
        check(system, history)


def test_the_rate_is_kept(server_root: Path) -> None:
    with filled(server_root / "pr", count=1_000, trim=False) as (system, _):
        now, waited = [0.0], list[float]()

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            now[0] += seconds

        made = FactReplay(system.stack, system.log, clock=lambda: now[0], sleep=sleep)
        done = made.replay(EVERYTHING, "tester", rate_per_s=250.0)
        assert done.records / 250.0 == pytest.approx(sum(waited))
        assert max(waited) <= 1.0, "never more than a second's records at once"
        with pytest.raises(Rejected, match="rate"):
            made.replay(EVERYTHING, "tester", rate_per_s=0)


@pytest.mark.parametrize(
    "step", ["after append", *(pytest.param(s, marks=pytest.mark.chaos) for s in ("begun", "before append", "noted"))]
)
def test_killed_and_said_again(server_root: Path, forked: Forked, step: str) -> None:
    """It goes on where it was, up to the log's ends of when it began."""
    text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
    with filled(server_root / f"pk{step[0]}{step[-1]}", count=1_600) as (system, history):
        mine = {r for r in in_log(system) if r.tenant == "tenant-0"}
        ends = system.ends()
        words = ("facts", system.settings.model_dump_json(), "tenant-0", "", step, "1" if step == "begun" else "4")
        done = forked.run(text, *words, timeout_s=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        again = replay(system, Chosen("tenant-0"))
        new = [r for p, n, rows in system.log_records() if n > ends[p] for r in rows]
        assert set(new) == mine
        assert len(new) <= 2 * len(mine)
        assert again.left == 0
        assert not list((system.stack.state_dir / "replays").glob("*")), "nothing is left behind"
        system.settle()
        check(system, history)


def test_it_goes_on_up_to_the_ends_of_when_it_began(server_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_place, "_NOTE_S", 0.0)
    with filled(server_root / "pe", count=1_600) as (system, history):
        told: list[int] = []

        def cut_off(done: Replayed) -> None:
            told.append(done.entries)
            if done.entries > sum(ends.values()) // 2:
                raise KeyboardInterrupt

        ends = system.ends()
        system.stack.settings = system.settings.model_copy(update={"ingest": QUICK})
        made = FactReplay(system.stack, system.log, sleep=lambda seconds: None)
        with pytest.raises(KeyboardInterrupt):
            made.replay(EVERYTHING, "tester", tell=cut_off)
        again = replay(system, EVERYTHING)
        assert again.resumed
        assert again.entries < sum(ends.values())
        system.settle()
        check(system, history)
        assert system.stack.control.audit.list(INSTALLATION)[-1].detail["resumed"]


def test_a_range_that_is_gone_is_refused(server_root: Path) -> None:
    with filled(server_root / "pg", count=400) as (system, _):
        system.stop_loops()
        lake = system.stack.state_dir / "lake"
        lake.rename(lake.with_name("away"))
        with pytest.raises(Rejected, match="cannot be replayed"):
            replay(system, EVERYTHING)


def test_without_a_lake_and_every_record_three_times(server_root: Path) -> None:
    with Installation(server_root / "pw", lake=LakeSettings(enabled=False)) as system:
        system.start()
        once = events(5, 600)
        thrice = [r for r in once for _ in range(3)]
        random.Random(5).shuffle(thrice)
        histories: list[History] = [Producer(system, thrice).send()]
        done = replay(system, EVERYTHING)
        assert done.records == len(once)
        with closing(system.stack.open_log()) as log:
            assert sum(log.records().values()) == 4 * len(once)
        system.settle()
        check(system, *histories)
