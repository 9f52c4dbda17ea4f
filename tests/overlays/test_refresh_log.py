"""What a refresh makes of a log that refuses, and of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import LogSettings
from cluster.embedded import Running
from cluster.errors import OutcomeUnknown, Rejected, Unavailable
from cluster.stores.control import ControlStore
from cluster.stores.log import Append
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import open_redis_log
from overlays.refresh import refresh, settle
from tests.overlays.facts import (
    BACKEND,
    FACTS,
    FIRST,
    IN_CASES,
    LATER,
    PARTITIONS,
    PEOPLE,
    TENANT,
    Crash,
    MemoryLog,
    around,
    once,
    runs_in,
    scoring,
    source,
    states,
    values,
)


def test_a_log_that_refuses_for_a_while(control: ControlStore, tmp_path: Path) -> None:
    log, waits, tries = MemoryLog(), [], []

    def append(entries: Sequence[Append]) -> None:
        tries.append(1)
        log.append(entries)
        if len(tries) < 4:
            raise OutcomeUnknown("cut", 1.0)

    surroundings = replace(around(control, log, tmp_path), append=append, sleep=waits.append)
    assert refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings).run.state == "published"
    assert len(waits) == 3
    assert runs_in(log) == {1}


def test_a_log_that_refuses_for_good_leaves_the_run_to_the_next(control: ControlStore, tmp_path: Path) -> None:
    def append(entries: Sequence[Append]) -> None:
        raise Unavailable("no log", 10.0)

    log = MemoryLog()
    calm = around(control, log, tmp_path, append_deadline_s=30.0)
    with pytest.raises(Unavailable):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(calm, append=append))
    assert states(control) == ["running"]
    assert settle(TENANT, scoring(FIRST), calm) == (1,)
    assert runs_in(log) == {1}


def test_a_plan_that_the_log_refuses_does_not_hold_up_the_next_run(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()
    calm = around(control, log, tmp_path)

    def append(entries: Sequence[Append]) -> None:
        if any(entry.records for entry in entries):
            raise Rejected("an entry is too large")
        log.append(entries)

    with pytest.raises(Crash):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, replace(calm, failpoint=once("floor")))
    settle(TENANT, scoring(FIRST), replace(calm, append=append))
    assert states(control) == ["failed"]
    assert runs_in(log) == set()
    refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, calm)
    assert runs_in(log) == {2}


def test_a_live_refresh_that_the_log_refuses_ends_cleared(control: ControlStore, tmp_path: Path) -> None:
    log = MemoryLog()

    def append(entries: Sequence[Append]) -> None:
        log.append(entries)
        if any(entry.records for entry in entries):
            raise Rejected("an entry is too large")

    surroundings = replace(around(control, log, tmp_path), append=append)
    with pytest.raises(Rejected):
        refresh(scoring(FIRST), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    settle(TENANT, scoring(FIRST), surroundings)
    assert states(control) == ["failed"]
    assert runs_in(log) == set()


@pytest.mark.services
def test_through_a_real_log(control: ControlStore, tmp_path: Path, log_server: Running, unique: str) -> None:
    address = RedisAddress(socket=str(log_server.socket), password=log_server.password)
    opened = open_redis_log(address, LogSettings(partitions=PARTITIONS), unique)
    surroundings = replace(around(control, MemoryLog(), tmp_path, top_k=2), append=opened.append)
    for scores in (FIRST, LATER):
        refresh(scoring(scores), source(PEOPLE, IN_CASES), BACKEND, surroundings)
    seen = MemoryLog()
    for partition, end in opened.ends().items():
        for number in range(end):
            entry = opened.read(partition, number, 1, 1 << 20)[0]
            seen.append([Append(partition, entry.data, entry.records)])
    opened.close()
    assert runs_in(seen) == {2}
    assert sorted(values(seen.fold(FACTS))) == [("c1", "a"), ("c1", "b"), ("c2", "c"), ("c2", "e"), ("c3", "e")]
