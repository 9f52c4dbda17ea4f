"""What consumers of the log have made durable."""

from __future__ import annotations

import pytest

from cluster.errors import Corrupt
from cluster.stores.control import ControlStore
from cluster.stores.log import LogIdentity


def test_the_log_may_be_trimmed_by_the_slowest_consumer(store: ControlStore) -> None:
    positions = store.positions
    assert positions.least() == {}
    positions.report_durable("shard-0", {0: 10, 1: 20}, 1.0)
    assert positions.least() == {0: 10, 1: 20}
    positions.register("lake", [0, 1], 2.0)
    assert positions.least() == {0: 0, 1: 0}, "a consumer that has reported nothing holds everything"
    positions.report_durable("lake", {0: 4, 1: 30}, 3.0)
    positions.register("lake", [0, 1], 4.0)
    assert (positions.least(), positions.greatest()) == ({0: 4, 1: 20}, {0: 10, 1: 30})
    positions.report_durable("shard-0", {0: 2}, 5.0)
    assert positions.of("shard-0") == {0: 2, 1: 20}
    positions.remove("lake")
    assert positions.least() == {0: 2, 1: 20}


def test_positions_are_of_one_log(store: ControlStore) -> None:
    identity = LogIdentity("a" * 32, 1, 8)
    assert store.positions.newest_log() is None
    store.positions.bind_log(identity)
    store.positions.bind_log(identity)
    with pytest.raises(Corrupt, match="not the one"):
        store.positions.bind_log(identity._replace(name="b" * 32))
    assert store.positions.newest_log() == identity
    with pytest.raises(Corrupt, match="not the one"):
        store.positions.bind_log(identity._replace(name="b" * 32, generation=2))
    store.positions.bind_log(identity._replace(generation=3))
    store.positions.bind_log(identity)
    with pytest.raises(Corrupt, match="not the one"):
        store.positions.bind_log(identity._replace(generation=3, partitions=4))
    other_number = identity._replace(generation=4, partitions=4)
    store.positions.bind_log(other_number)
    assert store.positions.newest_log() == other_number
