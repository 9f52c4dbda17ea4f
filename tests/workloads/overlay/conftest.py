"""A Ray node."""

from tests.workloads.overlay.ray_node import ray_node

__all__ = ["ray_node"]
