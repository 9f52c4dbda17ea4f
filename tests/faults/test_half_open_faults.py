"""Row 11: a connection of which one direction is dead. Nobody hears of it: who waits has to stop waiting by himself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

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
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds

pytestmark = [pytest.mark.services]

NOTHING_ARRIVES = Faults(to_server=Direction(drop=True))
BREAKER_S = 5.0
DEAF_S = 5.0
"""Much longer than a question's deadline: else who asks waits for the trial, and does not see the open breaker."""
SETTLES_S = 120.0
"""Not what is asked about here; a machine may be busy."""


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_half_open_between_writer_and_shard(server_root: Path, seed: int) -> None:
    """The writer gives up in its time, says so and begins anew; the other shard goes on; nothing is lost or twice."""
    long = is_long(seed)
    with Installation(server_root / f"ho{seed}") as system:
        system.start_servers()
        with system.behind_proxy("shard-0") as proxy:
            for shard in system.shard_ids:
                system.start_writer(shard)
            records = events(seed, 20_000 if long else 2_000)
            producer = Producer(system, records, rate_per_s=1_000 if long else 500).start()
            writer = system.writers["shard-0"]
            for turn, fault in enumerate((HALF_OPEN, NOTHING_ARRIVES) * (2 if long else 1)):
                share = (turn + 1) / (6 if long else 4)
                wait_until(lambda share=share: producer.sent >= share * producer.total)  # type: ignore[misc]
                wait_until(lambda: writer.status.state == "running", message="the writer is at work")
                proxy.set(fault)
                began = time.monotonic()
                wait_until(lambda: writer.status.state == "waiting", message="the writer stopped waiting")
                if long:
                    assert time.monotonic() - began <= 2 * system.settings.shards.timeout_s + 1.0
                system.settle_partly("shard-1")
                proxy.heal()
                wait_until(lambda: writer.status.state == "running", message="the writer goes on")
            history = producer.join()
            system.settle(deadline_s=SETTLES_S)
            check(system, history)
            system.stop_loops()


@pytest.mark.parametrize("fault", [HALF_OPEN, NOTHING_ARRIVES], ids=["no answers", "no questions"])
@pytest.mark.parametrize("seed", seeds(1, 10))
def test_half_open_between_api_and_shard(server_root: Path, seed: int, fault: Faults) -> None:
    """The breaker opens: who asks next is told at once, and no question goes out. Then a trial closes it again."""
    with Installation(server_root / f"ha{seed}{fault.to_server.drop:d}") as system:
        system.start()
        history = Producer(system, events(seed, 20_000 if is_long(seed) else 500)).send()
        system.settle()
        with system.behind_proxy("shard-0") as proxy:
            took_s = asyncio.run(_asked(system, proxy, fault))
        if is_long(seed):
            assert took_s <= BREAKER_S
        check(system, history)


async def _asked(system: Installation, proxy: FaultProxy, fault: Faults) -> float:
    """Asks before, during and after the fault; returns how long it took the breaker to open."""
    stack, settings = system.stack, QuerySettings(deadline_s=DEAF_S / 2, breaker_open_s=DEAF_S)
    fanout = FanOut(ControlDirectory(stack), lambda shard: stack.open_client(shard, 5.0), settings)
    mine, others = (_case_of(system, shard) for shard in system.shard_ids)
    try:
        await _ask(fanout, mine)
        proxy.set(fault)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await _ask(fanout, mine)
        while not await _is_shunned(fanout, mine):
            assert time.monotonic() < began + 30.0, "the breaker stays closed"
        took_s = time.monotonic() - began
        await _ask(fanout, others)
        proxy.heal()
        while True:
            try:
                await _ask(fanout, mine)
                return took_s
            except IntelGraphError:
                assert time.monotonic() < began + 60.0, "the breaker stays open"
                await asyncio.sleep(0.05)
    finally:
        fanout.close()


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
