"""A lake in S3 whose server goes away: the appender waits and says so, the log keeps what the lake lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.mending import mend
from cluster.embedded import ensure
from cluster.errors import OutcomeUnknown, Unavailable
from cluster.stores.places import open_place
from serve_apps.before_serving import check_before_serving_again
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.producer import Producer, events
from tests.faults.seeds import is_long, seeds
from tests.s3_bucket import S3Bucket
from workloads.snapshot.export import state_lines
from workloads.snapshot.job import take_snapshot
from workloads.snapshot.read import open_snapshot
from workloads.snapshot.verify import verify

pytestmark = [pytest.mark.services, pytest.mark.production]


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_s3_goes_away_and_comes_back(server_root: Path, bucket: S3Bucket, seed: int) -> None:
    root, records = server_root / f"s{seed}", events(seed, 20_000 if is_long(seed) else 2_000)
    half = len(records) // 2
    with Installation(root, lake=bucket.lake(commit_s=0.3)) as system:
        snapshots = open_place(bucket.snapshots(), root / "snapshots")
        system.start(lake=True)
        lake = system.lake
        assert lake is not None
        histories = [Producer(system, records[:half]).send()]
        system.settle()
        first = take_snapshot(system.stack.lake_address, snapshots, system.ends())
        kept = {p: at.number for p, at in first.positions.partitions.items()}

        bucket.kill()
        histories.append(Producer(system, records[half:]).send())
        system.settle()
        wait_until(lambda: lake.state == "waiting" and "does not answer" in lake.reason, message="it waits")
        system.stack.control.positions.report_durable("shard-0", system.ends(), 0.0)
        wait_until(lambda: lake.state == "waiting", message="it still waits")
        assert all(begin <= kept.get(p, 0) + 1 for p, begin in system.begins().items()), "nothing is trimmed beyond it"
        with pytest.raises((Unavailable, OutcomeUnknown)):
            take_snapshot(system.stack.lake_address, snapshots, system.ends(), timeout_s=1.0)

        assert mend(system.stack) is None, "a log that is whole waits for nobody"
        system.kill("log")
        system.running["log"] = ensure(system.spec("log"), check_before_serving_again(system.stack, system.spec("log")))

        bucket.start()
        wait_until(lambda: lake.records == len(records), 60.0, "the lake has everything")
        second = take_snapshot(system.stack.lake_address, snapshots, system.ends())
        fold = check(system, *histories)
        with open_snapshot(snapshots) as snapshot:
            assert (snapshot.id, snapshot.manifest.parent) == (second.id, first.id)
            assert verify(snapshot).is_whole
            assert list(state_lines(snapshot)) == fold.state_lines()
