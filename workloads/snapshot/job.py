"""Snapshots on a Ray cluster: the steps of `create` as few, large tasks. The way in for the command line and jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray

from actors.priority import step_aside
from cluster.errors import Unavailable
from cluster.stores.lake import Lake
from cluster.stores.lake_address import LakeAddress
from cluster.stores.places import FilePlace
from workloads.snapshot.create import UNIT_ROWS, create_snapshot, run_here
from workloads.snapshot.layout import Manifest

Task = TypeVar("Task")
Result = TypeVar("Result")
WAIT_STEP_S = 0.1
TASK_RETRIES = 2
"""A step writes files named by their content and nothing else, so running it again is harmless."""


def run_on_ray(step: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Runs a step for every task as Ray tasks; one task alone runs here, which saves its start."""
    if len(tasks) < 2:
        return run_here(step, tasks)
    remote: Any = ray.remote(max_retries=TASK_RETRIES)(_aside)
    found: list[Result] = ray.get([remote.remote(step, task) for task in tasks])
    return found


def _aside(step: Callable[[Task], Result], task: Task) -> Result:
    step_aside()
    return step(task)


def wait_for_lake(lake: Lake, ends: Mapping[int, int], timeout_s: float) -> None:
    """Waits until the lake holds the log up to `ends` (entry number by partition: the log's ends of this moment).

    Raises:
        Unavailable: it did not get there in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        at = lake.positions()
        behind = {partition: end for partition, end in ends.items() if at.of(partition).number < end}
        if not behind:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"snapshot: after {timeout_s:g} s the lake still lacks entries of partitions {sorted(behind)};"
                " see that the lake appender runs, then try again"
            )
        time.sleep(WAIT_STEP_S)


def take_snapshot(
    lake: LakeAddress,
    where: FilePlace | Path,
    ends: Mapping[int, int],
    *,
    timeout_s: float = 60.0,
    unit_rows: int = UNIT_ROWS,
) -> Manifest:
    """Waits for the lake, then takes a snapshot: on the Ray cluster where one is joined, else in this process.

    Args:
        ends: the log's ends, as `EventLog.ends()` says.

    Raises: as `wait_for_lake` and `create_snapshot`.
    """
    run = run_on_ray if ray.is_initialized() else run_here
    with lake.open() as opened:
        wait_for_lake(opened, ends, timeout_s)
        return create_snapshot(opened, where, time.time(), run=run, unit_rows=unit_rows)
