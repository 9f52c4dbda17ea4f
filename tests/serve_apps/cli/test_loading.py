"""What a load's outcomes are, from counts before and after; what an audit finds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.errors import Unavailable
from cluster.stores.control import open_control
from cluster.stores.graph import Cursor, Outcomes
from serve_apps.cli.conservation import PartitionBalance, shard_balance, together
from serve_apps.cli.loading import _Lag, _Waits, grown, told_before

KEY = ("acme", "hr", 1)


def test_outcomes_are_what_the_counts_grew_by() -> None:
    before = {KEY: Outcomes(5, 1, 0), ("acme", "other", 1): Outcomes(9, 9, 9)}
    after = {KEY: Outcomes(7, 2, 1), ("acme", "other", 1): Outcomes(90, 90, 90)}
    assert grown(before, after, *KEY, acked=4) == (2, 1, 1)


def test_records_with_epochs_of_their_own_are_counted_by_source() -> None:
    after = {("acme", "hr", 77): Outcomes(3, 0, 0), ("beta", "hr", 77): Outcomes(8, 0, 0)}
    assert grown({}, after, *KEY, acked=3) == (3, 0, 0)


def test_a_load_that_is_gone_on_with_counts_from_where_it_stood(tmp_path: Path) -> None:
    control = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    control.sources.register("acme", "hr", 1.0)
    done, running = (control.loads.start("acme", "hr", digest, 1.0) for digest in ("a", "b"))
    for load in (done, running):
        control.loads.commit("acme", load.id, 0, 0, 5, acked=7, dead=2)
    control.loads.end("acme", done.id, "done", 2.0)
    assert told_before(control, "acme") == {running.id: (7, 2)}
    control.close()


def test_a_log_that_is_away_leaves_the_lag_as_it_was_seen_last() -> None:
    log = SimpleNamespace(ends=lambda: {0: 7})
    shard = SimpleNamespace(cursors=lambda: {0: Cursor(0, 4, 1, 0, 0, 0, 0)})
    stack = SimpleNamespace(current_map=lambda: SimpleNamespace(partitions_of=lambda shard: [0]))
    lag = _Lag(cast(Any, SimpleNamespace(log=log, stack=stack, shards={"shard-0": shard})), every_s=0)

    def away() -> dict[int, int]:
        raise Unavailable("the event log does not answer")

    assert lag.entries() == 3
    log.ends = away
    assert lag.entries() == 3


def test_each_time_that_a_load_waits_is_said_once() -> None:
    said: list[str] = []
    waits = _Waits(cast(Any, SimpleNamespace(output=SimpleNamespace(note=lambda text, style: said.append(text)))))
    for reason in ("", "away", "away still", "", "full", "full"):
        waits.tell(reason)
    assert [text.rpartition(": ")[2] for text in said] == ["away", "full"]
    assert all("Ctrl-C" in text for text in said)


def test_shards_are_added_up() -> None:
    assert together([{KEY: Outcomes(1, 2, 3)}, {KEY: Outcomes(10, 20, 30)}]) == {KEY: Outcomes(11, 22, 33)}


@pytest.mark.parametrize(
    ("cursor", "outcomes", "holds"),
    [
        (Cursor(0, 9, 1, 6, 3, 2, 1), Outcomes(3, 2, 1), True),
        (Cursor(0, 9, 1, 7, 3, 2, 1), Outcomes(3, 2, 1), False),
        (Cursor(0, 9, 1, 6, 3, 2, 1), Outcomes(3, 2, 0), False),
    ],
)
def test_a_shard_balances_only_if_each_record_has_one_outcome(cursor: Cursor, outcomes: Outcomes, holds: bool) -> None:
    assert shard_balance("shard-0", [cursor], [outcomes]).holds is holds


@pytest.mark.parametrize("numbers", [(9, 10, 10), (10, 9, 10), (10, 10, 9)])
def test_a_partition_balances_only_if_all_three_counts_are_equal(numbers: tuple[int, int, int]) -> None:
    assert not PartitionBalance(0, 9, *numbers).holds
    assert PartitionBalance(0, 9, 10, 10, 10).holds
