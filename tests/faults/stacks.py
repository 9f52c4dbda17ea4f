"""An installation on a stack by its name, with servers of its own, for what runs without pytest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from services import kafka
from services.catalogue import CATALOGUE
from services.runner import Services
from tests.faults.harness import Installation
from tests.kafka_broker import KafkaBroker


@contextmanager
def opened(stack: str) -> Iterator[Installation]:
    """It, and afterwards nothing: its servers end, and its folder goes.

    Raises:
        NotInstallable: the servers of `production` cannot be had here.
    """
    folder = Path(tempfile.mkdtemp(prefix="igs-")).resolve()
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        if stack == "embedded":
            yield ending.enter_context(Installation(folder / "s"))
            return
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        import ray

        from tests.faults.production import ProductionInstallation

        services = Services(folder / "services", CATALOGUE, Path(__file__).parents[2] / ".services" / "artifacts")
        ending.callback(services.stop_all, keep_data=False)
        kafka.install(services.artifacts)
        broker = KafkaBroker(services.artifacts / "kafka", folder / "kafka")
        ending.callback(broker.kill)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="tests")
        ending.callback(ray.shutdown)
        yield ending.enter_context(ProductionInstallation(folder / "s", broker, services))
