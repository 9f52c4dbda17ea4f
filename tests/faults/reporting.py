"""What pytest does for fault runs: `--row=4` picks those of a row of the fault list, `--report=FOLDER` writes a report.

A test's row is what its docstring begins with (`Row 4: …`), or else that of its file; without either it has none. Each
run is kept when it ends, so that a campaign that is stopped has its report too.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.recording import as_lines, counted, recordings
from tests.faults.report import Row, as_text, keep, rows_in, write

_ROW = re.compile(r"Rows? ([0-9]+)(?:[:.,]| and)\s*(.*)", re.DOTALL)
_ROW_OF_FILE = re.compile(r"Row ([0-9]+)\b")
_REPORTS = pytest.StashKey["Reports"]()
_SAID_CHARS = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "fault runs")
    group.addoption("--row", type=int, default=None, help="only runs of this row of the fault list")
    group.addoption("--report", type=Path, default=None, metavar="FOLDER", help="write a report in a new folder there")


def pytest_configure(config: pytest.Config) -> None:
    if (folder := config.getoption("--report")) is not None:
        config.stash[_REPORTS] = Reports(folder.resolve() / time.strftime("%Y%m%d-%H%M%S"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (wanted := config.getoption("--row")) is not None:
        kept = [item for item in items if described(item)[0] == str(wanted)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def described(item: pytest.Item) -> tuple[str, str]:
    """The row of the fault list, and the fault: the first sentence of the docstring, or the test's name."""
    text = " ".join((getattr(getattr(item, "function", None), "__doc__", None) or "").split())
    match = _ROW.match(text)
    of_file = _ROW_OF_FILE.match(getattr(getattr(item, "module", None), "__doc__", None) or "")
    row, told = (match[1], match[2]) if match else (of_file[1] if of_file else "", "")
    name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    return row, told.partition(". ")[0].rstrip(".") or name


class Reports:
    """Of one session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._item: pytest.Item | None = None
        self._began = 0.0

    def begin(self, item: pytest.Item) -> None:
        """A test begins."""
        self._item, self._began = item, time.monotonic()
        recordings.begin()

    def end(self, verdict: str, said: str = "") -> None:
        """It ended; nothing where none had begun. Its row and series are kept."""
        item, self._item = self._item, None
        if item is None:
            return
        row, fault = described(item)
        parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
        made = recordings.end()
        found = counted(made[0]) if made else {}
        stack = made[0].system.stack_name if made else ""
        seed = str(parameters.get("seed", ""))
        seconds = round(time.monotonic() - self._began, 1)
        kept = Row(item.nodeid, row, fault, stack, seed, verdict, seconds, said=said[:_SAID_CHARS], **found)
        keep(self.folder, kept, as_lines(made[0]) if made else ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    reports = item.config.stash.get(_REPORTS, None)
    if reports is not None:
        reports.begin(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    made = yield
    reports = item.config.stash.get(_REPORTS, None)
    if reports is not None and (made.when == "call" or made.outcome != "passed"):
        verdict = {"passed": "held"}.get(made.outcome, made.outcome)
        reports.end(verdict, _said(made, call))
    return made


def _said(made: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    if made.outcome == "passed":
        return ""
    if isinstance(made.longrepr, tuple):
        return str(made.longrepr[2])
    return " ".join(str(call.excinfo.value).split()) if call.excinfo else ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    reports = session.config.stash.get(_REPORTS, None)
    if reports is not None:
        reports.end("stopped")
        if rows_in(reports.folder):
            write(reports.folder)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = config.stash.get(_REPORTS, None)
    if reports is not None and (rows := rows_in(reports.folder)):
        terminalreporter.section("fault runs")
        for line in as_text(rows):
            terminalreporter.write_line(line)
        terminalreporter.write_line(str(reports.folder / "report.html"))
