"""What a command prints: tables, facts and progress for people, or one JSON document for machines.

People read stdout; progress, notes and errors go to stderr, so that output can be piped. Colour is for terminals.
Texts that came from sources are escaped: they cannot drive the terminal and are not read as markup.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_CELL_CHARS = 200
_PIPED_COLUMNS = 160


class Output:
    """Where one command prints.

    Args:
        as_json: one JSON document on stdout at the end, nothing else there.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def out(self) -> Console:
        """Standard output."""
        make = _console()
        piped = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or _PIPED_COLUMNS)
        return make(highlight=False, width=piped, emoji=False)

    @cached_property
    def err(self) -> Console:
        """Standard error: progress, notes, errors."""
        make = _console()
        return make(stderr=True, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())

    def result(self, document: Any) -> None:
        """The command's JSON document; nothing where people read."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, ensure_ascii=False, default=_plain) + "\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Raw lines on stdout, whatever the mode: for exports and values that are piped on."""
        for line in lines:
            sys.stdout.write(line + "\n")

    def text(self, text: str = "", style: str = "") -> None:
        """One line for people, without markup."""
        if not self.as_json:
            self.out.print(printable(text), style=style or None, markup=False)

    def lines_for_people(self, lines: Iterable[str]) -> None:
        """Lines that are never wrapped, so that they can be copied; nothing with --json."""
        if not self.as_json:
            self.lines(lines)

    def note(self, text: str, style: str = "dim") -> None:
        """A remark on stderr; also with --json."""
        self.err.print(printable(text), style=style, markup=False)

    def facts(self, pairs: Mapping[str, Any]) -> None:
        """Names and values below each other."""
        if self.as_json:
            return
        width = max(map(len, pairs), default=0)
        for name, value in pairs.items():
            self.out.print(f"[bold]{name.ljust(width)}[/bold]  ", end="")
            self.out.print(printable(shown(value)), markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """A table for people. Columns whose values are all numbers stand to the right."""
        if self.as_json:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        cells = [list(row) for row in rows]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for at, column in enumerate(columns):
            numbers = bool(cells) and all(isinstance(row[at], int | float) for row in cells)
            table.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=column == "load")
        for row in cells:
            table.add_row(*(Text(printable(shown(value))) for value in row))
        self.text(title, "bold")
        self.out.print(table)
        self.text(caption or ("" if cells else "(none)"), "dim")

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """A spinner on a terminal while something of unknown length goes on; yields what names the present step."""
        if not self.err.is_terminal:
            yield lambda step: None
            return
        with self.err.status(printable(what)) as status:
            yield lambda step: status.update(f"{printable(what)}: {printable(step)}")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress bars on stderr, on a terminal; elsewhere tasks can be updated and nothing is shown."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]}", markup=False), TimeElapsedColumn(),
            console=self.err, disable=not self.err.is_terminal, transient=True,
        )  # fmt: skip
        with bars:
            yield bars


def _console() -> type[Console]:
    """Rich's console, which ends the process by itself where nobody reads any more: `verbs.guarded` decides that."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Piped


def shown(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}" if abs(value) < 0.01 and value else f"{value:,.2f}"
        case str():
            return value if len(value) <= _CELL_CHARS else value[: _CELL_CHARS - 1] + "…"
        case _:
            return shown(json.dumps(value, ensure_ascii=False, default=_plain))


def exact(value: Any) -> str:
    """What a source said, unrounded: two texts are equal only if the values are, unless they are cut.

    A text that would read as another kind of value stands in quotes.
    """
    if value is None or (isinstance(value, str) and not _reads_as_another(value)):
        return shown(value)
    return shown(json.dumps(value, ensure_ascii=False, default=_plain))


def printable(text: str) -> str:
    """The text with control and direction marks escaped; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as local time, for people."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _reads_as_another(text: str) -> bool:
    if text == "-" or len(text) > _CELL_CHARS:
        return text == "-"
    try:
        return not isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
