"""As test_lost_tail_faults, where the log is in a Kafka broker whose files are set back."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.mending import mend
from cluster.config import LogSettings
from cluster.config_kafka import KafkaSettings
from cluster.errors import Unavailable
from services import kafka
from services.runner import Services
from services.spec import NotInstallable
from tests.faults.harness import Installation
from tests.faults.test_lost_tail_faults import COUNT, SetBack, mended
from tests.forked import Forked
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.services, pytest.mark.production]


@pytest.fixture(scope="module")
def broker(server_root: Path, production: Services) -> Iterator[KafkaBroker]:
    """A broker that is killed, and whose files are exchanged."""
    try:
        kafka.install(production.artifacts)
    except NotInstallable as error:
        pytest.skip(f"kafka: {error}")
    found = KafkaBroker(production.artifacts / "kafka", server_root / "kafka-set-back")
    found.start()
    yield found
    found.kill()


class SetBackBroker(SetBack):
    """A broker's files, set back."""

    broker: KafkaBroker

    def _folders(self) -> list[Path]:
        return sorted((self.broker.folder / "data").glob(f"{self.system.settings.log.kafka.topic_prefix}.log-1-*"))

    def copy(self) -> None:
        """See `SetBack.copy`."""
        aside = self.broker.folder / self.system.settings.log.kafka.topic_prefix
        for folder in self._folders():
            shutil.copytree(folder, aside / folder.name)

    def set_back(self, copy: int = 0) -> None:
        """See `SetBack.set_back`."""
        self.system.stop_loops()
        self.reopen()
        self.broker.kill()
        aside = self.broker.folder / self.system.settings.log.kafka.topic_prefix
        for folder in self._folders():
            shutil.rmtree(folder)
            shutil.copytree(aside / folder.name, folder)
        self.broker.start()


@contextmanager
def mixed(folder: Path, broker: KafkaBroker, seed: int) -> Iterator[SetBackBroker]:
    """A third of the events is in the copy, a third in the lake, and a third in shards alone."""
    prefix = folder.name
    reached = KafkaSettings(bootstrap=broker.bootstrap, replication_factor=1, min_in_sync=1, topic_prefix=prefix)
    log = LogSettings(kind="kafka", kafka=reached, partitions=4, block_ms=50, timeout_s=5.0, read_entries=8)
    with Installation(folder, lease_s=1.0, log=log) as system:
        system.start()
        done = SetBackBroker(system, seed)
        done.broker = broker
        done.send(0, COUNT // 3)
        done.run_lake()
        done.copy()
        done.send(COUNT // 3, 2 * COUNT // 3)
        done.run_lake()
        system.stop_lake()
        done.send(2 * COUNT // 3, COUNT)
        yield done


def test_made_good_on_kafka(server_root: Path, broker: KafkaBroker) -> None:
    with mixed(server_root / "ltq", broker, 1) as done:
        before = done.system.hashes()
        done.set_back()
        found = mended(done)
        assert found.generation == 2
        assert found.again > 5
        assert found.empty > 5
        assert sum(found.facts.values()) > 50
        assert mend(done.system.stack) is None
        done.go_on()
        assert done.system.hashes() == before
        done.check()


@pytest.mark.chaos
def test_killed_on_kafka_and_said_again(server_root: Path, broker: KafkaBroker) -> None:
    with Forked(("tests.faults.dying",), dict(os.environ)) as forked, mixed(server_root / "ltr", broker, 2) as done:
        before = done.system.hashes()
        for step, nth in (("fenced", 1), ("opened", 1), ("again", 2), ("empty", 1), ("facts", 2), ("audited", 1)):
            done.set_back()
            text = "import sys; from tests.faults.dying import child; child(*sys.argv[1:])"
            words = ("mend", done.system.settings.model_dump_json(), "", "", step, str(nth))
            dead = forked.run(text, *words, timeout_s=60)
            assert dead.returncode == -signal.SIGKILL, (step, nth, dead.stderr)
            if step != "fenced":
                with pytest.raises(Unavailable, match="being opened"):
                    done.system.stack.open_log()
            assert mended(done).generation >= 2
            done.go_on(lake=False)
            assert done.system.hashes() == before, (step, nth)
            done.check()
