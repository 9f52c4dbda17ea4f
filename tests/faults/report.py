"""The report of fault runs: a row and a picture for each, as one HTML page that needs nothing else, and as text.

    .chaos/20260131-094500/rows.jsonl           a line for each run that ended (`Row`)
                           series/NAME.jsonl    what was seen in it, a line each (`recording.as_lines`)
                           report.html

`python -m tests.faults.report FOLDER` makes the page again from the lines.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from tests.faults.pictures import picture
from tests.faults.recording import HEALED_S, Mark, Point

ROWS, SERIES, PAGE = "rows.jsonl", "series", "report.html"


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Numbers as in `recording.Outcome`; those of a run whose check never ended are not `checked`.

    Args:
        test: its id, which pytest takes; or the whole command that ran it.
        row: of the fault list, or none.
        verdict: held, failed, skipped or stopped.
        said: why it did not hold, in one line.
    """

    test: str
    row: str
    fault: str
    stack: str
    seed: str
    verdict: str
    seconds: float = 0.0
    events: int = 0
    acked: int = 0
    unknown: int = 0
    applied: int = 0
    duplicate: int = 0
    stale: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0
    checked: bool = False
    worst_lag_s: float = 0.0
    heal_s: float = 0.0
    said: str = ""

    @property
    def name(self) -> str:
        """Of its series."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.test.partition("faults/")[2] or self.test).strip("-")

    @property
    def again(self) -> str:
        """The command that runs it once more."""
        return f".venv/bin/python -m pytest '{self.test}' --timeout 7200" if "::" in self.test else self.test


COLUMNS = (
    "row", "fault", "stack", "seed", "events", "acked", "applied", "duplicate", "stale", "dead", "lost", "doubled",
    "worst lag, s", "healed in, s", "seconds", "verdict",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row's texts, a column each; a dash where nothing was counted."""
    numbers = (row.events, row.acked, row.applied, row.duplicate, row.stale, row.dead, row.lost, row.doubled)
    counted = row.checked or any(numbers)
    return [
        row.row or "–", row.fault, row.stack or "–", row.seed or "–",
        *(f"{n:,}" if counted else "–" for n in numbers),
        *(f"{n:.1f}" if row.worst_lag_s or row.heal_s else "–" for n in (row.worst_lag_s, row.heal_s)),
        f"{row.seconds:.0f}", row.verdict,
    ]  # fmt: skip


def keep(folder: Path, row: Row, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes a run's row and series; each is whole when this returns."""
    (folder / SERIES).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if text:
        (folder / SERIES / f"{row.name}.jsonl").write_text(text)
    with (folder / ROWS).open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def rows_in(folder: Path) -> list[Row]:
    """Every run's last row, in the order of the fault list."""
    known = {field.name for field in fields(Row)}
    lines = (folder / ROWS).read_text().splitlines() if (folder / ROWS).is_file() else []
    rows = {row["test"]: row for row in map(json.loads, lines)}
    made = [Row(**{name: value for name, value in row.items() if name in known}) for row in rows.values()]
    return sorted(made, key=lambda row: (int(row.row or 99), row.fault, row.stack, int(row.seed or 0), row.test))


def series_of(folder: Path, row: Row) -> tuple[list[Point], list[Mark]]:
    """What was seen in a run."""
    path = folder / SERIES / f"{row.name}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    seen = [one for one in lines if "lag_s" in one]
    points = [Point(one["at_s"], one["records"], one["lag_s"], one["memory_bytes"]) for one in seen]
    return points, [Mark(one["at_s"], one["mark"], one["fault"]) for one in lines if "mark" in one]


_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem;color:#1f2328;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #d1d9e0;text-align:right;white-space:nowrap}
th:nth-child(2),td:nth-child(2){text-align:left;white-space:normal;min-width:16rem}
.held{color:#1a7f37}.failed{color:#cf222e;font-weight:600}.stopped,.skipped{color:#9a6700}
section{margin:2rem 0}h2{font-size:1rem;margin:0 0 .3rem}pre{background:#f6f8fa;padding:.6rem;overflow:auto}
svg .panel{fill:#f6f8fa}svg .curve{fill:none;stroke-width:1.4}svg text{font:10px system-ui,sans-serif;fill:#59636e}
svg .number{text-anchor:end}svg .time{text-anchor:middle}svg .limit{stroke:#bf3989;stroke-dasharray:2 3;opacity:.6}
svg .fault{stroke:#cf222e;stroke-width:1.2}svg .healed{stroke:#1a7f37;stroke-dasharray:3 2}svg .mark{fill:#cf222e}
"""


def page(folder: Path) -> str:
    """The whole report as HTML."""
    rows = rows_in(folder)
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join(_table_row(number, row) for number, row in enumerate(rows))
    runs = "".join(_section(folder, number, row) for number, row in enumerate(rows))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Fault runs</title>'
        f"<style>{_STYLE}</style></head><body><h1>Fault runs</h1><p>{escape(summary(rows))}</p>"
        "<p>Each picture shows events a second into the shards and how long the oldest event waits, over time. Red "
        "lines are faults, green ones what healed them; the dotted line is the lag below which a fault is over.</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{runs}</body></html>\n"
    )


def _table_row(number: int, row: Row) -> str:
    texts = [escape(cell) for cell in cells(row)]
    texts[1] = f'<a href="#run{number}">{texts[1]}</a>'
    texts[-1] = f'<span class="{escape(row.verdict)}">{texts[-1]}</span>'
    return f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>"


def _section(folder: Path, number: int, row: Row) -> str:
    points, marks = series_of(folder, row)
    name = f"{f'Row {row.row}: ' if row.row else ''}{row.fault}"
    details = " · ".join(part for part in (row.stack, f"seed {row.seed}" if row.seed else "", row.verdict) if part)
    said = f"<pre>{escape(row.said)}\n{escape(row.again)}</pre>" if row.verdict != "held" else ""
    drawn = picture(points, marks, HEALED_S)
    return f'<section id="run{number}"><h2>{escape(name)}</h2><div>{escape(details)}</div>{said}{drawn}</section>'


def summary(rows: Sequence[Row]) -> str:
    """One line."""
    verdicts = [row.verdict for row in rows]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)) or "nothing ran"
    lost, doubled, events = (sum(getattr(row, name) for row in rows) for name in ("lost", "doubled", "events"))
    return f"{len(rows)} runs: {counts}; {events:,} events, {lost:,} lost, {doubled:,} doubled."


def as_text(rows: Sequence[Row]) -> list[str]:
    """The table for a terminal, and for each run that did not hold the command that runs it again."""
    table = [list(COLUMNS), *(cells(row) for row in rows)]
    table = [[*line[:1], line[1][:44], *line[2:]] for line in table]
    widths = [max(len(line[n]) for line in table) for n in range(len(COLUMNS))]
    lines = ["  ".join(f"{t:{'<' if n == 1 else '>'}{widths[n]}}" for n, t in enumerate(line)) for line in table]
    for row in rows:
        if row.verdict in ("failed", "stopped"):
            lines += ["", f"{row.verdict}, seed {row.seed or '–'}: {row.said}", f"  {row.again}"]
    return [*lines, "", summary(rows)]


def write(folder: Path) -> Path:
    """Writes the page; returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    path.write_text(page(folder))
    return path


if __name__ == "__main__":
    print("\n".join(as_text(rows_in(Path(sys.argv[1])))))
    print(write(Path(sys.argv[1])))
