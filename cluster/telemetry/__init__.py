"""Logs and metrics: `Log` for structured events, `metrics` for what is counted, `merge_expositions` for `/metrics`."""

from cluster.telemetry.logs import Log, configure
from cluster.telemetry.merge import merge_expositions
from cluster.telemetry.metrics import exposition, stage

__all__ = ["Log", "configure", "exposition", "merge_expositions", "stage"]
