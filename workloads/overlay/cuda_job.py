"""PageRank on one GPU, by pylibcugraph: the same files in, the same files out as `pagerank_job`.

The sum and the stopping rule are the kernel's (dangling mass spread, L1 change below vertices * tolerance); float64.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.config import OverlaySettings
from workloads.kernels.csr import Floats
from workloads.kernels.pagerank import teleport_vector
from workloads.overlay import row_groups
from workloads.overlay.calls import results
from workloads.overlay.input import GraphFiles
from workloads.overlay.louvain_job import read_edges
from workloads.overlay.pagerank_job import PageRankRun, pagerank_job
from workloads.overlay.partition import write_values
from workloads.overlay.stages import Stages

FILE = "ranks-00000.parquet"
NEVER = 1e-300
"""The library takes a tolerance of 0 for its default: this one is never reached either."""


def cuda_pagerank_job(
    graph: GraphFiles, folder: Path, settings: OverlaySettings, *, personalisation: Floats | None = None
) -> PageRankRun:
    """Rank a graph on a GPU of the cluster and write the ranks into a folder. Blocks; safe to call twice.

    `iterations` and `residual` of the result are 0: the library does not tell them. Errors as `pagerank_job`.
    """
    if graph.edges == 0:
        return pagerank_job(graph, folder, settings, personalisation=personalisation)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    with stages.measure("plan"):
        offsets, neighbours = row_groups.plan([graph.offsets, graph.neighbours])
    teleport = teleport_vector(personalisation, graph.vertices)
    task: Any = ray.remote(_solve)
    call = task.options(num_gpus=1, num_cpus=0, max_retries=settings.job_attempts - 1).remote(
        graph.vertices, offsets, neighbours, teleport, settings, str(folder)
    )
    ranks, converged, seconds = results([call], settings.job_timeout_s)[0]
    return PageRankRun(ranks, 0, converged, 0.0, (FILE,), 1, stages.seconds | seconds)


def _solve(
    vertices: int,
    offsets: row_groups.PlannedColumn,
    neighbours: row_groups.PlannedColumn,
    teleport: Floats | None,
    settings: OverlaySettings,
    folder: str,
) -> tuple[Floats, bool, dict[str, float]]:
    stages = Stages()
    with stages.measure("load"):
        src, dst = read_edges(vertices, offsets, neighbours)
    with stages.measure("solve"):
        ranks, converged = _on_gpu(src, dst, vertices, teleport, settings)
    with stages.measure("write"):
        write_values(Path(folder) / FILE, "rank", np.arange(vertices), ranks)
    return ranks, converged, stages.seconds


def _on_gpu(src: Any, dst: Any, vertices: int, teleport: Floats | None, settings: OverlaySettings) -> tuple[Any, bool]:
    cupy: Any = import_module("cupy")
    pylibcugraph: Any = import_module("pylibcugraph")

    handle = pylibcugraph.ResourceHandle()
    graph = pylibcugraph.SGGraph(
        handle,
        pylibcugraph.GraphProperties(is_symmetric=False, is_multigraph=True),
        cupy.asarray(src),
        cupy.asarray(dst),
        vertices_array=cupy.arange(vertices, dtype=cupy.int64),
        weight_array=cupy.ones(len(src), dtype=cupy.float64),
        store_transposed=True,
        renumber=True,
        do_expensive_check=False,
    )
    limits = {
        "alpha": settings.damping,
        "epsilon": vertices * settings.tolerance or NEVER,
        "max_iterations": settings.iterations_max,
        "do_expensive_check": False,
        "fail_on_nonconvergence": False,
    }
    if teleport is None:
        vertex, rank, converged = pylibcugraph.pagerank(handle, graph, None, None, None, None, **limits)
    else:
        chosen = np.flatnonzero(teleport)
        where, values = cupy.asarray(chosen), cupy.asarray(teleport[chosen])
        vertex, rank, converged = pylibcugraph.personalized_pagerank(
            handle, graph, None, None, None, None, where, values, **limits
        )
    ranks = np.empty(vertices)
    ranks[cupy.asnumpy(vertex)] = cupy.asnumpy(rank)
    return ranks, bool(converged)
