"""Row 19 of the fault list: a shard that is slow, and many more events than usual for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import LakeSettings, LogSettings
from tests.fault_proxy import Direction, Faults
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.memory import Peaks
from tests.faults.producer import Producer, events
from tests.faults.questions import Questions
from tests.faults.seeds import is_long, seeds
from tests.faults.supervised import Supervised

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.usefixtures("ray_node")]

TEXT_CHARS = 2_000
ORDINARY_PER_S, BURST_PER_S = 100, 1_000
SLOW = Faults(Direction(delay_s=0.1, bytes_per_s=600_000), Direction(delay_s=0.1))
"""Enough for what the shard gets on ordinary days; a burst sends it several times that. Questions to it take 0.2 s."""
LOG = LogSettings(partitions=4, block_ms=50, timeout_s=5.0, read_bytes=256 << 10)
LAKE = LakeSettings(commit_s=0.3, commit_bytes=4 << 20)
FORMS, SPARE_BYTES = 8, 16 << 20
"""What is read is there as packed entries, columns, records and the text of a query, in two turns; and so much do
allocators keep for later."""
ANSWERS = 100
DRAINED_S = 240.0


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_slow_shard_and_a_burst_of_ten_times_the_events(server_root: Path, seed: int) -> None:
    """Row 19: a slow shard, and a burst of ten times the ordinary events for it. Memory of those who read the log stays
    within what their settings let them hold; who asks the other shard notices nothing; nothing is lost."""
    long = is_long(seed)
    with Installation(server_root / f"ss{seed}", log=LOG, lake=LAKE) as system:
        system.start_servers()
        slow, other = system.shard_ids
        owners = system.stack.current_map().owners
        ordinary = Producer(system, events(seed, 4_000 if long else 1_500, text_chars=TEXT_CHARS), 50, ORDINARY_PER_S)
        many = events(seed, 40_000 if long else 8_000, start=ordinary.total + 1, text_chars=TEXT_CHARS)
        burst = Producer(system, [r for r in many if owners[r.bucket] == slow], 50, BURST_PER_S)
        with system.behind_proxy(slow) as proxy, Supervised(system.stack) as actors:
            system.settle()  # the first start lets nobody in either, and is not what is asked about
            ordinary.start()
            with Questions(system, other) as asked, Peaks(pids := actors.pids()) as peaks:
                with asked.marked("calm"):
                    wait_until(lambda: ordinary.sent >= ordinary.total // 3)
                    wait_until(lambda: asked.answers("calm") >= ANSWERS)
                before = peaks.taken()
                with asked.marked("fault"):
                    proxy.set(SLOW)
                    burst.start()
                    history = burst.join(DRAINED_S)
                    wait_until(lambda: asked.answers("fault") >= ANSWERS)
                waiting_bytes = waiting_for(system, slow)
                proxy.heal()
                system.settle(deadline_s=DRAINED_S)
                after = peaks.taken()
                assert actors.pids() == pids, "one that died was not looked at"
            for name, most in after.items():
                grown, bound = most - before[name], SPARE_BYTES + FORMS * read_at_once_bytes(system, name)
                assert grown <= bound, f"{name} grew by {grown / 2**20:.1f} MiB, over {bound / 2**20:.1f}"
                if name.endswith(slow):
                    assert FORMS * waiting_bytes > 2 * bound, "too little waited to tell whether it is read at once"
            assert asked.failed == [], "the other shard did not answer"
            if long:
                assert asked.p95_s("fault") <= 1.5 * asked.p95_s("calm")
            histories = [history, ordinary.join(DRAINED_S)]
            system.settle(deadline_s=DRAINED_S)
        check(system, *histories)


def read_at_once_bytes(system: Installation, actor: str) -> int:
    """What settings let an actor hold of the log: a writer a turn at work and the next one, the lake's a commit."""
    kind, _, shard = actor.partition(":")
    if kind == "shard-writer":
        return 2 * len(system.stack.current_map().partitions_of(shard)) * system.settings.log.read_bytes
    return system.settings.lake.commit_bytes if kind == "lake-appender" else 0


def waiting_for(system: Installation, shard: str) -> int:
    """Bytes that the log has and a shard has not applied."""
    ends, found = system.ends(), 0
    for partition, after in system.positions(shard).items():
        while after < ends[partition]:
            for entry in system.log.read(partition, after, 64, 8 << 20):
                found, after = found + len(entry.data), entry.number
    return found
