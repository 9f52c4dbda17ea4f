"""Row 11: a connection of which one direction is dead. Nobody hears of it: who waits has to stop waiting by himself."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster.config import QuerySettings
from cluster.errors import IntelGraphError, NotFound, Unavailable
from cluster.ids import bucket_of
from cluster.query.fanout import FanOut
from cluster.query.hot import read_entity
from cluster.query.ir import EntityQuery
from cluster.query.lane import Shunned
from serve_apps.services import ControlDirectory
from tests.fault_proxy import HALF_OPEN, Direction, FaultProxy, Faults
from tests.faults.checks import check
from tests.faults.conftest import Install
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, on_stacks

pytestmark = [pytest.mark.services]

NOTHING_ARRIVES = Faults(to_server=Direction(drop=True))
BREAKER_S = 5.0
DEAF_S = 5.0
"""Much longer than a question's deadline: else who asks waits for the trial, and does not see the open breaker."""
ANSWERED_S = 60.0
SETTLES_S = SENT_S = 240.0
"""Not what is asked about here; a machine may be busy."""
RATES_PER_S = {"embedded": 1_000, "production": 200}
"""So that events come in until the last of four faults."""


@pytest.mark.parametrize(("stack", "seed"), on_stacks(1, 10))
def test_half_open_between_writer_and_shard(install: Install, stack: str, seed: int) -> None:
    """Row 11: a connection between writer and shard, half-open. The writer gives up in its time, says so and begins
    anew; the other shard goes on; nothing is lost or twice."""
    long = is_long(seed)
    with install(f"ho{seed}") as system:
        system.start_servers()
        victim, other = system.shard_ids
        with system.behind_proxy(victim) as proxy:
            system.start_loops()
            system.settle()  # a first start is not what is asked about
            records = events(seed, 20_000 if long else 2_000)
            producer = Producer(system, records, rate_per_s=RATES_PER_S[stack] if long else 500)
            shares = 6 if long else 4
            producer.free(2 / shares)
            producer.start()
            writer = system.writers[victim]

            def becomes(state: str) -> None:
                wait_until(lambda: writer.status.state == state, system.deadline_s, f"the writer is {state}")

            for turn, fault in enumerate((HALF_OPEN, NOTHING_ARRIVES) * (2 if long else 1)):
                share = (turn + 1) / shares
                wait_until(lambda share=share: producer.sent >= share * producer.total, SENT_S)  # type: ignore[misc]
                becomes("running")
                proxy.set(fault)
                producer.free((turn + 3) / shares)  # else a writer that has all never asks its shard
                began = time.monotonic()
                becomes("waiting")
                if long:
                    assert time.monotonic() - began <= 2 * system.settings.shards.timeout_s + 1.0
                system.settle_partly(other)
                proxy.heal()
                becomes("running")
            history = producer.join(SENT_S)
            system.settle(deadline_s=SETTLES_S)
            check(system, history)
            system.stop_loops()


@pytest.mark.parametrize("fault", [HALF_OPEN, NOTHING_ARRIVES], ids=["no answers", "no questions"])
@pytest.mark.parametrize(("stack", "seed"), on_stacks(1, 10))
def test_half_open_between_api_and_shard(install: Install, seed: int, fault: Faults) -> None:
    """Row 11: a connection between API and shard, half-open. The breaker opens: who asks next is told at once, and no
    question goes out. Then a trial closes it again."""
    with install(f"ha{seed}{fault.to_server.drop:d}") as system:
        system.start()
        history = Producer(system, events(seed, 20_000 if is_long(seed) else 500)).send()
        system.settle(deadline_s=SETTLES_S)
        with system.behind_proxy(system.shard_ids[0]) as proxy:
            took_s = asyncio.run(_asked(system, proxy, fault))
        if is_long(seed):
            assert took_s <= BREAKER_S
        system.settle(deadline_s=SETTLES_S)
        check(system, history)


async def _asked(system: Installation, proxy: FaultProxy, fault: Faults) -> float:
    """Asks before, during and after the fault; returns how long it took the breaker to open."""
    stack, settings = system.stack, QuerySettings(deadline_s=DEAF_S / 2, breaker_open_s=DEAF_S)
    fanout = FanOut(ControlDirectory(stack), lambda shard: stack.open_client(shard, 5.0), settings)
    mine, others = (_case_of(system, shard) for shard in system.shard_ids)
    try:
        await _answered(fanout, mine)
        proxy.set(fault)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await _ask(fanout, mine)
        while not await _is_shunned(fanout, mine):
            assert time.monotonic() < began + 30.0, "the breaker stays closed"
        took_s = time.monotonic() - began
        await _ask(fanout, others)
        proxy.heal()
        await _answered(fanout, mine)
        return took_s
    finally:
        fanout.close()


async def _answered(fanout: FanOut, case: tuple[str, str]) -> None:
    """Waits for an answer."""
    until = time.monotonic() + ANSWERED_S
    while True:
        try:
            return await _ask(fanout, case)
        except IntelGraphError:
            assert time.monotonic() < until, "no answer"
            await asyncio.sleep(0.05)


async def _is_shunned(fanout: FanOut, case: tuple[str, str]) -> bool:
    try:
        await _ask(fanout, case)
    except IntelGraphError as error:
        return isinstance(error, Shunned)
    return False


async def _ask(fanout: FanOut, case: tuple[str, str]) -> None:
    query = EntityQuery(*case, "person", "1")
    try:
        await fanout.one(bucket_of(*case), lambda found: read_entity(found, query), fanout.deadline())
    except NotFound:  # that is an answer
        return


def _case_of(system: Installation, shard: str) -> tuple[str, str]:
    owners = system.stack.current_map().owners
    cases = ((f"tenant-{t}", f"case-{c}") for t in range(3) for c in range(4))
    return next(pair for pair in cases if owners[bucket_of(*pair)] == shard)
