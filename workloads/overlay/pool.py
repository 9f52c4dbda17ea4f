"""Named actors that overlay jobs share and that stay warm between runs.

They reserve no CPU: a warm actor that waits must not keep Ray Data's tasks from running. They are detached, are
found by name, and restart empty: who finds its slice gone begins again from the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from workloads.overlay.calls import results
from workloads.overlay.partition import Partition

NAMESPACE = "intelgraph"
PARTITION_NAME = "overlay-partition-{}"
COMMUNITY_NAME = "overlay-communities"


def named_actor(name: str, cls: type, *arguments: Any) -> Any:
    """The actor of that name, created if there is none. Safe to call twice, and from several processes at once."""
    options = {"lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "num_cpus": 0}
    remote: Any = ray.remote(cls)
    return remote.options(
        name=name, namespace=NAMESPACE, scheduling_strategy="SPREAD", max_task_retries=0, **options
    ).remote(*arguments)


def partition_actors(count: int, timeout_s: float) -> list[Any]:
    """`count` partition actors, ready and with their kernels compiled. Blocks."""
    actors = [named_actor(PARTITION_NAME.format(number), Partition) for number in range(count)]
    warm(actors, timeout_s)
    return actors


def warm(actors: Sequence[Any], timeout_s: float) -> None:
    """Wait until actors have compiled their kernels. One that has just died is waited for until it is back.

    Raises:
        Unavailable: one is not ready in time.
    """
    again = {"max_task_retries": -1}  # Ray refuses calls to an actor that restarts, unless they may be tried again
    results([actor.warm.options(**again).remote() for actor in actors], timeout_s)


def parts_for(edges: int, cores: int, edges_per_part: int, parts_max: int) -> int:
    """How many actors a graph gets: one for each `edges_per_part`, no more than cores; small graphs get one."""
    return max(1, min(cores, parts_max, -(-edges // max(1, edges_per_part))))


def cluster_cores() -> int:
    """Cores of the running cluster."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))
