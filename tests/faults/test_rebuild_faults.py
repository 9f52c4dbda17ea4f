"""A shard is rebuilt while the others serve: under load, killed at every step, refused where it could not heal."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from actors.ownership import alone, take_out
from actors.rebuild import Progress, Rebuilt, StateDiffers, rebuild, saved
from actors.stack import Stack
from cluster.config import LakeSettings, QuerySettings
from cluster.errors import Conflict, Corrupt, Fenced, NotFound, Rejected
from cluster.query.fanout import FanOut
from cluster.query.hot import list_cases, read_entity
from cluster.query.ir import CasesQuery, EntityQuery
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.graph import Fence, StoredThing
from cluster.stores.lake_files import name_in, place_of
from cluster.stores.lake_scan import manifest_entries
from serve_apps.api.problems import of_error
from serve_apps.services import ControlDirectory
from tests.fault_proxy import Faults
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import History, Producer, events
from tests.faults.questions import Questions
from tests.faults.reader import Reader
from tests.faults.seeds import is_long, seeds
from tests.faults.test_log_and_shard_faults import _trim
from tests.forked import Forked

pytestmark = [pytest.mark.services]

LEASE_S = 3.0
STEPS = (
    ("paused", 1), ("noted", 1), ("raised", 1), ("refused", 1), ("marked", 1), ("emptying", 2), ("emptied", 1),
    ("begun again", 1), ("filled", 1), ("healed", 1), ("compared", 1),
)  # fmt: skip


@contextmanager
def filled(
    folder: Path, seed: int = 1, count: int = 2_000, trim: bool = True
) -> Iterator[tuple[Installation, History]]:
    """An installation with events, of which the log has lost half to the lake."""
    with Installation(folder, lease_s=LEASE_S) as system:
        system.start(lake=True)
        records = events(seed, count)
        first = Producer(system, records[: count // 2]).send()
        system.settle()
        if trim:
            _trim(system)
        history = Producer(system, records[count // 2 :]).send()
        history.ok |= first.ok
        history.invoked |= first.invoked
        system.settle()
        yield system, history


def killed_at(forked: Forked, system: Installation, step: str, nth: int) -> None:
    text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
    words = ("rebuild", system.settings.model_dump_json(), "", "shard-0", step, str(nth))
    done = forked.run(text, *words, timeout_s=60)
    assert done.returncode == -signal.SIGKILL, (step, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, 1))
def test_killed_at_its_steps_and_said_again(server_root: Path, forked: Forked, seed: int) -> None:
    """At once, before its own writer could heal it: it is compared with the state that was noted first."""
    steps = STEPS if is_long(seed) else STEPS[::3]
    with filled(server_root / f"rk{seed}", seed) as (system, history):
        before = system.hashes()
        for step, nth in steps:
            system.stop_writer("shard-0")
            killed_at(forked, system, step, nth)
            assert rebuild(system.stack, "shard-0", "tester", verify=True).lines
            assert system.hashes() == before, f"said again after {step}"
            system.start_writer("shard-0")
            system.settle()
        check(system, history)
        said = [entry.action for entry in system.stack.control.audit.every(INSTALLATION)]
        assert said.count("shard.rebuilt") == len(steps)
        assert not list((system.stack.state_dir / "rebuilds").iterdir())


@pytest.mark.slow
def test_killed_and_never_said_again(server_root: Path, forked: Forked) -> None:
    with filled(server_root / "ra") as (system, history):
        before = system.hashes()
        for step, nth in (("refused", 1), ("marked", 1), ("emptying", 2), ("begun again", 1), ("filled", 1)):
            killed_at(forked, system, step, nth)
            wait_until(lambda: system.is_current("shard-0"), message=f"heals by itself after {step}")
            assert system.hashes() == before, step
            check(system, history)


def test_one_that_stands_still_between_its_steps_keeps_its_leases(server_root: Path) -> None:
    """Longer than a lease lasts: the shard's own writer waits all the same."""

    def stand_still(step: str) -> None:
        if step in ("raised", "refused", "healed"):
            time.sleep(2 * LEASE_S)

    with filled(server_root / "rs", count=400) as (system, history):
        before = system.hashes()
        rebuild(system.stack, "shard-0", "tester", verify=True, failpoint=stand_still)
        system.settle()
        assert system.hashes() == before
        check(system, history)


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_under_load(server_root: Path, seed: int) -> None:
    """Nothing is lost, nothing stale is served, and the other shard answers throughout."""
    first = 6_000 if is_long(seed) else 1_500
    with Installation(server_root / f"rl{seed}", lease_s=LEASE_S) as system, Reader(system, "shard-0") as reader:
        system.start(lake=True)
        producer = Producer(system, events(seed, 20 * first), rate_per_s=300).start()
        wait_until(lambda: producer.sent >= first, 120.0, "there is something to rebuild")
        _trim_to_lake(system)
        wait_until(lambda: system.writers["shard-1"].status.ready, message="shard-1 serves")
        with Questions(system, "shard-1") as asked, asked.marked("rebuilding"):
            seen: list[Progress] = []
            done = _rebuilt_while(system, reader, seen)
            assert producer.sent < producer.total, "nothing came in any more: slow the producer down"
            wait_until(lambda: system.writers["shard-0"].status.ready, message="shard-0 serves again")
        producer.stopping = True
        history = producer.join()
        system.settle(deadline_s=60)
        assert done.records > first / 6
        assert {one.step for one in seen} <= {"noting", "emptying", "healing", "comparing"}
        assert reader.stale == []
        assert reader.refused and reader.served
        assert asked.failed == [], "the other shard did not answer"
        assert asked.answers("rebuilding")
        check(system, history)


def _trim_to_lake(system: Installation) -> None:
    """The log has lost its beginning to the lake, while more comes in."""
    for shard in system.shard_ids:
        system.checkpoint(shard)
    wait_until(lambda: any(begin > 1 for begin in system.begins().values()), message="the log is trimmed")


def _rebuilt_while(system: Installation, reader: Reader, seen: list[Progress]) -> Rebuilt:
    ends = {p: n for p, n in system.ends().items() if p in system.stack.current_map().partitions_of("shard-0")}

    def failpoint(step: str) -> None:
        if step == "refused":
            reader.expect(ends)

    return rebuild(system.stack, "shard-0", "tester", verify=True, tell=seen.append, failpoint=failpoint)


def test_questions_meanwhile_are_told_to_try_again_or_what_is_missing(server_root: Path) -> None:
    with filled(server_root / "rq", count=400) as (system, _):
        stack = system.stack
        owned = stack.current_map().buckets_of("shard-0")
        settings = QuerySettings(deadline_s=1.0)
        told: list[object] = []

        async def ask() -> None:
            fanout = FanOut(ControlDirectory(stack), lambda shard: stack.open_client(shard, 5.0), settings)
            query = EntityQuery("tenant-0", "case-0", "person", "1")
            with pytest.raises(Fenced, match="being rebuilt; try again") as refused:
                await fanout.one(owned[0], lambda shard: read_entity(shard, query), fanout.deadline())
            told.append(json.loads(bytes(of_error(refused.value).body))["status"])
            page = CasesQuery("tenant-0", limit=100)
            merged = await fanout.every(lambda shard: list_cases(shard, page), fanout.deadline())
            told.append(dict(merged.missing))
            fanout.close()

        def failpoint(step: str) -> None:
            if step == "emptied":
                asyncio.run(ask())

        rebuild(stack, "shard-0", "tester", failpoint=failpoint)
        assert told == [503, {"shard-0": "the shard catches up with the log, or is being rebuilt; try again"}]


def take_register(system: Installation, shard_id: str) -> StoredThing:
    """Takes a thing's registers away behind the writer's back; returns what it was."""
    with closing(system.stack.open_shard(shard_id)) as shard:
        epoch = system.stack.control.shards.get(shard_id).epoch
        cursors = shard.cursors()
        fence = Fence(epoch, max(c.lease for c in cursors.values()), tuple(sorted(cursors)))
        thing = next(t for case in sorted(shard.cases()) for t in shard.things(*case) if t.registers)
        shard.replace(fence, [(thing._replace(registers={}), None)])
        return thing


def test_a_difference_is_named_and_what_was_there_is_kept(server_root: Path) -> None:
    with filled(server_root / "rd") as (system, history):
        before = system.hashes()
        taken = take_register(system, "shard-0")
        assert system.hashes() != before
        with pytest.raises(
            StateDiffers, match=rf"/{taken.id} of case .*had nothing, and now has version .* 1 thing differs"
        ) as told:
            rebuild(system.stack, "shard-0", "tester", verify=True)
        assert Path(str(told.value).rpartition(" is in ")[2]).parent.stat().st_mode & 0o077 == 0
        system.settle()
        assert system.hashes() == before, "lake and log are the truth"
        assert rebuild(system.stack, "shard-0", "tester", verify=True).lines
        system.settle()
        check(system, history)


def test_refused_where_it_could_not_heal(server_root: Path) -> None:
    with filled(server_root / "rr") as (system, history):
        before, stack = system.hashes(), system.stack
        with pytest.raises(NotFound):
            rebuild(stack, "shard-9", "tester")
        shards = stack.settings.shards.model_copy(update={"lease_s": 30.0})
        longer = Stack(stack.settings.model_copy(update={"shards": shards}))
        with alone(longer, "a change of shards"), pytest.raises(Conflict, match="a change of shards"):
            rebuild(stack, "shard-0", "tester")
        with alone(longer, "rebuilding shard-0"), pytest.raises(Conflict, match="rebuilding shard-0"):
            take_out(stack, "shard-1")
        longer.control.close()
        lake = stack.state_dir / "lake"
        system.stop_loops()
        with stack.open_lake() as opened:
            version = opened._version(None)
            assert version is not None
            place, entry = place_of(opened._table), next(manifest_entries(opened._table, version))
            file = place.local / name_in(place, entry.data_file.file_path)
        file.rename(file.with_suffix(".away"))
        with pytest.raises(Corrupt, match="missing"):
            rebuild(stack, "shard-0", "tester")
        file.with_suffix(".away").rename(file)
        lake.rename(lake.with_name("away"))
        with pytest.raises(Rejected, match=r"begins at entry .* there is no lake"):
            rebuild(stack, "shard-0", "tester")
        with stack.open_lake():
            pass  # an empty one
        with pytest.raises(Rejected, match=r"filled from another log|the lake ends at 0"):
            rebuild(stack, "shard-0", "tester")
        assert system.hashes() == before
        for shard in system.shard_ids:
            system.start_writer(shard)
        system.settle()
        assert history.ok


def test_without_a_lake_while_the_log_has_all(server_root: Path) -> None:
    with Installation(server_root / "rw", lease_s=LEASE_S, lake=LakeSettings(enabled=False)) as system:
        system.start()
        history = Producer(system, events(3, 600)).send()
        system.settle()
        before = system.hashes()
        rebuild(system.stack, "shard-0", "tester", verify=True)
        system.settle()
        assert system.hashes() == before
        check(system, history)


def test_a_shard_that_is_rebuilt_is_saved_anew(server_root: Path) -> None:
    """Its cursors are where they were, so by them alone nothing would have to be saved."""
    with filled(server_root / "rc") as (system, history):
        take_register(system, "shard-0")
        system.saves("shard-0").save(system.running["shard-0"])
        with pytest.raises(StateDiffers):
            rebuild(system.stack, "shard-0", "tester", verify=True)
        system.settle()
        done = rebuild(system.stack, "shard-0", "tester")
        assert not saved(system.stack, done, 0.2)
        system.settle()
        _trim(system)
        assert saved(system.stack, done, 0.0)
        system.kill("shard-0")
        system.restart("shard-0")
        system.settle()
        check(system, history)


def test_a_shard_that_hangs_is_left_as_it_is(server_root: Path) -> None:
    with filled(server_root / "rh", count=400, trim=False) as (system, history):
        before = system.hashes()
        with system.behind_proxy("shard-0") as proxy:
            proxy.set(Faults(refuse=True))
            with pytest.raises(Exception, match=r"shard|connect"):
                rebuild(system.stack, "shard-0", "tester")
            proxy.heal()
        system.settle(deadline_s=60)
        assert system.hashes() == before
        check(system, history)
        assert threading.active_count() < 40
