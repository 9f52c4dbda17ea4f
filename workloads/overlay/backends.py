"""Where an overlay is computed: `cpu` (numba kernels on partition actors), `cuda` (pylibcugraph), or `auto`.

    backend = choose_backend(settings.backend)        once the cluster runs
    backend.pagerank(graph, folder, settings)

Both answer alike, within tolerance. `auto` takes CUDA where the cluster has a GPU and pylibcugraph is installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, Protocol

import ray

from cluster.config import OverlaySettings
from cluster.errors import Rejected
from workloads.kernels.csr import Floats
from workloads.overlay.cuda_job import cuda_pagerank_job
from workloads.overlay.input import GraphFiles
from workloads.overlay.louvain_job import LouvainRun, louvain_job
from workloads.overlay.pagerank_job import PageRankRun, pagerank_job

BackendName = Literal["cpu", "cuda", "auto"]
CUDA_MODULES = ("pylibcugraph", "cupy")


class Backend(Protocol):
    """What every backend does; errors as `pagerank_job` and `louvain_job` say."""

    @property
    def name(self) -> str:
        """`cpu` or `cuda`."""
        ...

    def pagerank(
        self, graph: GraphFiles, folder: Path, settings: OverlaySettings, personalisation: Floats | None = None
    ) -> PageRankRun:
        """Ranks of a graph, also written into the folder."""
        ...

    def louvain(self, graph: GraphFiles, folder: Path, settings: OverlaySettings) -> LouvainRun:
        """Communities of a graph, also written into the folder."""
        ...


class CpuBackend:
    """Partition actors and numba kernels."""

    name = "cpu"

    def pagerank(
        self, graph: GraphFiles, folder: Path, settings: OverlaySettings, personalisation: Floats | None = None
    ) -> PageRankRun:
        """Ranks of a graph, also written into the folder."""
        return pagerank_job(graph, folder, settings, personalisation=personalisation)

    def louvain(self, graph: GraphFiles, folder: Path, settings: OverlaySettings) -> LouvainRun:
        """Communities of a graph, also written into the folder."""
        return louvain_job(graph, folder, settings)


class CudaBackend(CpuBackend):
    """pylibcugraph on one GPU for PageRank; communities stay on the CPU, so that their names are the same."""

    name = "cuda"

    def pagerank(
        self, graph: GraphFiles, folder: Path, settings: OverlaySettings, personalisation: Floats | None = None
    ) -> PageRankRun:
        """Ranks of a graph, also written into the folder."""
        return cuda_pagerank_job(graph, folder, settings, personalisation=personalisation)


def choose_backend(wanted: BackendName) -> Backend:
    """The backend of that name; `auto` decides by what the running cluster has.

    Raises:
        Rejected: CUDA is wanted and there is no GPU in the cluster, or pylibcugraph is not installed.
    """
    if wanted == "cpu":
        return CpuBackend()
    missing = _what_cuda_lacks()
    if not missing:
        return CudaBackend()
    if wanted == "cuda":
        raise Rejected(f"backend cuda: {missing}. Set overlays.backend to cpu, or to auto to choose by what is there")
    return CpuBackend()


def _what_cuda_lacks() -> str:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if resources.get("GPU", 0) < 1:
        return "no node of the cluster has a GPU"
    absent = [name for name in CUDA_MODULES if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; install the extra `gpu`" if absent else ""
