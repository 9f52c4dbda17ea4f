"""Streams against the log: a record that was acknowledged and is not there is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.stores.control import ControlStore, open_control
from cluster.stores.control_streams import Read, partition_lease
from cluster.streams.model import Look, StreamSpec
from serve_apps.cli.log_counts import Counted
from serve_apps.cli.stream_balance import StreamBalance, stream_balances, stream_counts


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    """A stream of two tenants that has acknowledged seven records, and a load of its source that has three."""
    store = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    for tenant in ("a", "b"):
        store.sources.register(tenant, "feed", 0.0)
    store.streams.add(StreamSpec("feed", ("a", "b"), "facts"), 0.0)
    store.streams.looked("feed", Look("t", {0: 0}, {0: 9}), 0.0)
    token = store.leases.acquire(partition_lease("feed", 0), "w", 9.0, 0.0)
    epoch = store.streams.partitions("feed")[0].epoch
    store.streams.commit("feed", Read(0, token, epoch, 0, 9, acked=7, dead=2))
    load = store.loads.start("b", "feed", "digest", 0.0)
    store.loads.commit("b", load.id, 0, 0, 3, acked=3)
    yield store
    store.close()


@pytest.mark.parametrize(("of_a", "of_b", "holds"), [(4, 6, True), (9, 9, True), (4, 5, False), (10, 0, True)])
def test_what_is_missing_is_found(control: ControlStore, of_a: int, of_b: int, holds: bool) -> None:
    counted = {
        ("a", "feed", 2): Counted(records=of_a), ("b", "feed", 3): Counted(records=of_b),
        ("a", "other", 1): Counted(records=50), ("c", "feed", 1): Counted(records=50),
    }  # fmt: skip
    (balance,) = stream_balances(control, stream_counts(control), counted)
    assert balance == StreamBalance("feed", 7, 2, of_a + of_b, 3)
    assert balance.holds is holds
