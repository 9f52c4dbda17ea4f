"""Which backend is taken."""

from __future__ import annotations

import pytest

from cluster.errors import Rejected
from workloads.overlay import backends
from workloads.overlay.backends import choose_backend


@pytest.mark.services
def test_without_a_gpu(ray_node: None) -> None:
    assert choose_backend("cpu").name == "cpu"
    assert choose_backend("auto").name == "cpu"
    with pytest.raises(Rejected, match="no node of the cluster has a GPU"):
        choose_backend("cuda")


def test_with_a_gpu_but_not_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr(backends, "CUDA_MODULES", ("no_such_library",))
    assert choose_backend("auto").name == "cpu"
    with pytest.raises(Rejected, match="no_such_library not installed"):
        choose_backend("cuda")


def test_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr(backends, "CUDA_MODULES", ("json",))
    assert choose_backend("auto").name == choose_backend("cuda").name == "cuda"
