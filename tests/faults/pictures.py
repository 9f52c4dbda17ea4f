"""A run as an SVG picture: records a second above, lag below, over time, with each fault and its healing marked.

No library and no script: an element that a page can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from tests.faults.recording import Mark, Point

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP, BOTTOM = 760, 90, 64, 12, 8, 22, 22
_MARK_CHARS, _MARKS_NAMED = 28, 14


class Panel(NamedTuple):
    """One curve: its unit, its values by time (None: nobody knows), and a limit that is drawn."""

    unit: str
    values: Sequence[tuple[float, float | None]]
    colour: str
    limit: float | None = None


def rates(points: Sequence[Point]) -> list[tuple[float, float | None]]:
    """Records a second between looks. A shard that came back older counts down: that is shown as nothing."""
    found = list[tuple[float, float | None]]()
    for before, after in pairwise(points):
        passed_s = max(after.at_s - before.at_s, 1e-3)
        found.append((after.at_s, max(0.0, (after.records - before.records) / passed_s)))
    return found


def picture(points: Sequence[Point], marks: Sequence[Mark], limit_s: float) -> str:
    """The SVG element; nothing where nobody looked twice."""
    if len(points) < 2:
        return ""
    panels = [
        Panel("events/s", rates(points), "#1f6feb"),
        Panel("lag, s", [(p.at_s, p.lag_s) for p in points], "#bf3989", limit_s),
    ]
    if any(p.memory_bytes for p in points):
        memory = [(p.at_s, p.memory_bytes / 2**20 if p.memory_bytes else None) for p in points]
        panels.append(Panel("memory, MiB", memory, "#57606a"))
    end_s = max(points[-1].at_s, *(m.at_s for m in marks), 1.0) if marks else max(points[-1].at_s, 1.0)
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, at_s / end_s))

    tops = [TOP + number * (PANEL + GAP) for number in range(len(panels))]
    grounds = [
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" class="panel"/>' for top in tops
    ]
    drawn = [_panel(panel, top, x) for panel, top in zip(panels, tops, strict=True)]
    bottom = TOP + len(panels) * (PANEL + GAP) - GAP
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg {size} role="img" aria-label="events a second and lag over time">'
    return "".join([head, *grounds, *_marks(marks, x, bottom), *drawn, *_times(end_s, x, bottom), "</svg>"])


def _panel(panel: Panel, top: float, x: Callable[[float], float]) -> str:
    known = [value for _, value in panel.values if value is not None]
    most = nice(max([*known, (panel.limit or 0.0) * 1.2], default=1.0) or 1.0)

    def y(value: float) -> float:
        return top + PANEL * (1 - min(1.0, value / most))

    words = (
        f'<text x="{LEFT - 6}" y="{top + 9}" class="number">{most:g}</text>'
        f'<text x="{LEFT - 6}" y="{top + PANEL}" class="number">0</text>'
        f'<text x="{LEFT + 6}" y="{top + 12}" class="unit" fill="{panel.colour}">{escape(panel.unit)}</text>'
    )
    at = y(panel.limit) if panel.limit is not None else 0.0
    limit = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="limit"/>' if at else ""
    curves = [" ".join(f"{x(at_s):.1f},{y(value):.1f}" for at_s, value in piece) for piece in _pieces(panel.values)]
    lines = "".join(f'<polyline points="{curve}" class="curve" stroke="{panel.colour}"/>' for curve in curves)
    return limit + lines + words


def _pieces(values: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Without the gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for at_s, value in values:
        if value is not None:
            pieces[-1].append((at_s, value))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _marks(marks: Sequence[Mark], x: Callable[[float], float], bottom: float) -> list[str]:
    drawn = list[str]()
    for mark in marks:
        kind, at = ("fault" if mark.fault else "healed"), x(mark.at_s)
        title = f"<title>{mark.at_s:.1f} s: {escape(mark.what)}</title>"
        drawn.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}" class="{kind}">{title}</line>')
        if len(marks) <= _MARKS_NAMED and mark.fault:
            word = escape(mark.what[:_MARK_CHARS])
            side, beside = (' text-anchor="end"', at - 3) if at > WIDTH * 0.75 else ("", at + 3)
            drawn.append(f'<text x="{beside:.1f}" y="{TOP + PANEL + 14}" class="mark"{side}>{word}</text>')
    return drawn


def _times(end_s: float, x: Callable[[float], float], bottom: float) -> list[str]:
    step = nice(end_s / 6)
    return [
        f'<text x="{x(n * step):.1f}" y="{bottom + 14}" class="time">{n * step:g} s</text>'
        for n in range(int(end_s / step) + 1)
    ]


def nice(value: float) -> float:
    """The least of 1, 2, 5, 10, … that is no less."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= value * (1 - 1e-9))
