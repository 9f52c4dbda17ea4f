"""The report of fault runs: rows, pictures, what a failing seed is replayed by, and a session that is stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.faults.pictures import nice, picture, rates
from tests.faults.recording import Mark, Point, heal_s, worst_lag_s
from tests.faults.report import Row, as_text, keep, page, rows_in, series_of, write

ROOT = Path(__file__).parents[2]
POINTS = [Point(0.5 * n, 100 * n if n < 4 else 300 + 50 * n, 0.1 if n < 10 else None) for n in range(12)]
MARKS = [Mark(1.0, "log killed <now>", True), Mark(2.0, "log started", False)]
HELD = Row("tests/faults/test_x.py::test_y[seed3]", "4", "the log is killed", "embedded", "3", "held", 12.0, 20_000)
FAILED = replace(HELD, test="tests/faults/test_x.py::test_y[seed4]", seed="4", verdict="failed", lost=2, said="2 lost")


def element(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 our own


def kept(folder: Path) -> Path:
    lines = [{"at_s": p.at_s, "records": p.records, "lag_s": p.lag_s, "memory_bytes": None} for p in POINTS]
    marks = [{"at_s": m.at_s, "mark": m.what, "fault": m.fault} for m in MARKS]
    keep(folder, HELD, [*lines, *marks])
    keep(folder, FAILED, ())
    return folder


def test_a_run_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept(tmp_path)
    assert rows_in(tmp_path) == [HELD, FAILED]
    assert series_of(tmp_path, HELD) == (POINTS, MARKS)
    assert series_of(tmp_path, FAILED) == ([], [])
    keep(tmp_path, replace(FAILED, verdict="held"), ())
    assert [row.verdict for row in rows_in(tmp_path)] == ["held", "held"], "its last run counts"


def test_the_page_is_whole_and_asks_for_nothing_else(tmp_path: Path) -> None:
    text = write(kept(tmp_path)).read_text()
    assert text == page(tmp_path)
    assert "log killed &lt;now&gt;" in text
    assert "<now>" not in text
    assert "2 runs: 1 held, 1 failed; 40,000 events, 2 lost, 0 doubled." in text
    for outside in ("<script", "http:", "https:", "src=", "@import", "url("):
        assert outside not in text
    (svg,) = element(text.replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")).iter("svg")
    assert len(svg.findall("polyline")) == 2
    assert [line.get("class") for line in svg.findall("line")].count("fault") == 1


def test_a_failing_seed_is_told_with_the_command_that_replays_it(tmp_path: Path) -> None:
    text = "\n".join(as_text(rows_in(kept(tmp_path))))
    assert "failed, seed 4: 2 lost" in text
    assert ".venv/bin/python -m pytest 'tests/faults/test_x.py::test_y[seed4]' --timeout 7200" in text
    assert text.count("--timeout") == 1, "and no other"


def test_a_picture_has_gaps_where_nobody_could_tell() -> None:
    points = [Point(0.0, 0, 1.0), Point(1.0, 10, None), Point(2.0, 20, 2.0), Point(3.0, 30, 3.0)]
    svg = element(picture(points, [], 5.0))
    assert len(svg.findall("polyline")) == 3, "one of the rate, two of the lag"
    assert picture(points[:1], [], 5.0) == ""


def test_a_shard_that_comes_back_older_counts_down() -> None:
    points = [Point(0.0, 100, 0.0), Point(2.0, 300, 0.0), Point(3.0, 200, 0.0)]
    assert rates(points) == [(2.0, 100.0), (3.0, 0.0)]


@pytest.mark.parametrize(
    ("lags", "worst", "healed"),
    [([0.1, 0.2, 0.3], 0.3, 0.0), ([1, 6, 7, 4], 7, 2.0), ([1, 6, None, None], 6, 3.0), ([6, 1, 1, 8], 8, 3.0)],
)
def test_worst_lag_and_time_to_heal(lags: list[float | None], worst: float, healed: float) -> None:
    points = [Point(float(n), 0, lag) for n, lag in enumerate(lags)]
    assert worst_lag_s(points) == worst
    assert heal_s(points, [Mark(0.0, "killed", True), Mark(1.5, "started", False)]) == healed


def test_time_to_heal_ends_at_the_next_fault() -> None:
    points = [Point(float(n), 0, 6.0 if n in (1, 2, 5) else 0.0) for n in range(8)]
    assert heal_s(points, [Mark(0.5, "a", True), Mark(4.0, "b", True)]) == 1.5
    assert heal_s(points, []) == 0.0


@pytest.mark.parametrize(("value", "shown"), [(1, 1), (1.1, 2), (3, 5), (7, 10), (0.03, 0.05), (2000, 2000)])
def test_axes_end_at_round_numbers(value: float, shown: float) -> None:
    assert nice(value) == pytest.approx(shown)


_RUNS = '''"""Row 7: the cache."""
import os, signal, time
import pytest

@pytest.mark.parametrize("seed", [1, 2])
def test_one_that_fails(seed):
    """Row 4: the log is killed. And more."""
    assert seed == 1, f"lost with {seed}"

def test_of_another_row():
    """Rows 5 and 6: shards."""

def test_that_is_stopped():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
'''


def runs(tmp_path: Path, *options: str) -> tuple[str, list[dict[str, object]]]:
    (tmp_path / "test_runs.py").write_text(_RUNS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.faults.reporting", "--report", "out", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    (folder,) = (tmp_path / "out").iterdir()
    assert (folder / "report.html").is_file(), done.stdout
    return done.stdout, [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_each_run_is_kept_also_of_a_session_that_is_stopped(tmp_path: Path) -> None:
    told, rows = runs(tmp_path)
    assert [(row["row"], row["fault"], row["seed"], row["verdict"]) for row in rows] == [
        ("4", "the log is killed", "1", "held"),
        ("4", "the log is killed", "2", "failed"),
        ("5", "6: shards", "", "held"),
        ("7", "that is stopped", "", "stopped"),
    ]
    assert "lost with 2" in str(rows[1]["said"])
    assert "pytest 'test_runs.py::test_one_that_fails[2]'" in told


def test_one_row_alone(tmp_path: Path) -> None:
    told, rows = runs(tmp_path, "--row", "4")
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert "2 deselected" in told
