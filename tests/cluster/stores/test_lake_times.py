"""The lake knows when entries were appended to the log, beside files of a table that did not know it yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import LakeSettings
from cluster.model import Record, floor_record
from cluster.stores import lake_table
from cluster.stores.lake import Lake, Positions
from cluster.stores.lake_scan import APPENDED
from tests.cluster.stores.lake_records import LOG, entries, people, rows_of

SETTINGS = LakeSettings(compact_files=1)


def timed(lake: Lake, at: Positions, first: int, appended_ms: int | None, records: list[Record]) -> Positions:
    return lake.append([entry._replace(appended_ms=appended_ms) for entry in entries(0, first, [records])], at)


def ids(lake: Lake, **wanted: int) -> list[str]:
    return [record.id for record in rows_of(lake, partition=0, **wanted)]


def test_rows_of_a_time(tmp_path: Path) -> None:
    with Lake.open(tmp_path / "lake", settings=SETTINGS) as lake:
        at = LOG
        for number in range(1, 5):
            at = timed(lake, at, number, number * 100, people(number, 1))
        assert ids(lake, since_ms=200, until_ms=400) == ["p00002", "p00003"]
        assert ids(lake, until_ms=101) == ["p00001"]
        assert ids(lake, since_ms=401) == []
        assert len(ids(lake)) == 4


def test_floors_are_of_every_time(tmp_path: Path) -> None:
    with Lake.open(tmp_path / "lake") as lake:
        floor = floor_record("t", "s", "", "a0a1", 0)
        timed(lake, LOG, 1, 100, [floor, *people(1, 1)])
        assert rows_of(lake, partition=0, since_ms=200) == [floor]


def test_a_lake_made_before_it_knew_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns them from the next opening on; rows without one are of every time, after a compaction too."""
    with monkeypatch.context() as before:
        before.delitem(lake_table._OWN, APPENDED)
        before.setattr(lake_table, "_with_times", lambda table: table)
        with Lake.open(tmp_path / "lake", settings=SETTINGS) as lake:
            at = timed(lake, LOG, 1, 100, people(1, 1))
            at = timed(lake, at, 2, 200, people(2, 1))
            assert APPENDED not in lake._table.schema().column_names
    with Lake.open(tmp_path / "lake", create=False, settings=SETTINGS) as reader:
        assert ids(reader) == ["p00001", "p00002"]
        with Lake.open(tmp_path / "lake", settings=SETTINGS) as lake:
            at = timed(lake, at, 3, 300, people(3, 1))
            at = timed(lake, at, 4, 400, people(4, 1))
            for _ in range(2):
                assert ids(lake) == ids(reader) == ["p00001", "p00002", "p00003", "p00004"]
                assert ids(lake, since_ms=350) == ids(reader, since_ms=350) == ["p00001", "p00002", "p00004"]
                assert [entry.number for entry in lake.entries(0, after=0)] == [1, 2, 3, 4]
                lake.maintain(0.0)
            assert lake.positions() == at


def test_an_append_while_the_table_learns_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An appender that opened the table before goes on, and its commit lands once."""
    with monkeypatch.context() as before:
        before.delitem(lake_table._OWN, APPENDED)
        before.setattr(lake_table, "_with_times", lambda table: table)
        lake = Lake.open(tmp_path / "lake", settings=SETTINGS)
        at = timed(lake, LOG, 1, 100, people(1, 1))
    with Lake.open(tmp_path / "lake", settings=SETTINGS) as later:
        at = timed(lake, at, 2, 200, people(2, 1))
        timed(lake, at, 3, 300, people(3, 1))
        assert ids(later) == ["p00001", "p00002", "p00003"]
        assert APPENDED in later._table.schema().column_names
    lake.close()
