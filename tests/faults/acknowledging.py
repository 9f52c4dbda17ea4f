"""A process that writes to the control store or the lake, or takes snapshots, and says each time on its standard output
that it has.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import batch
from cluster.errors import IntelGraphError
from cluster.stores.control import open_control
from cluster.stores.lake import Lake, Positions
from cluster.stores.lake_entries import LakeEntry
from tests.faults.producer import events
from workloads.snapshot.create import create_snapshot

REFUSED = 3
"""The exit status where a store refused, as it should."""


def main(what: str, folder: str, count: str) -> None:
    """`control` registers sources, `lake` appends entries, `snapshots` takes one of each of these; a line for each."""
    try:
        {"control": _control, "lake": _lake, "snapshots": _snapshots}[what](Path(folder), int(count))
    except IntelGraphError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        sys.exit(REFUSED)


def _acknowledge(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def _control(folder: Path, count: int) -> None:
    control = open_control(f"sqlite:///{folder / 'control.db'}")
    for number in range(1, count + 1):
        control.sources.register("acme", f"s{os.getpid()}-{number}", float(number))
        _acknowledge(number)


def _lake(folder: Path, count: int) -> None:
    for number in _appended(folder, count):
        _acknowledge(number)


def _snapshots(folder: Path, count: int) -> None:
    for number in _appended(folder, count):
        with Lake.open(folder / "lake", create=False) as lake:
            create_snapshot(lake, folder / "snapshots", time.time())
        _acknowledge(number)


def _appended(folder: Path, count: int) -> Iterator[int]:
    """Appends to the lake, entry by entry."""
    records = events(1, 20 * count)
    with Lake.open(folder / "lake") as lake:
        at = lake.positions() if lake.version() else Positions("log", 1)
        for number in range(1, count + 1):
            rows = batch.to_arrow(records[20 * (number - 1) : 20 * number])
            at = lake.append([LakeEntry(0, at.of(0).number + 1, rows, 1)], at)
            yield number


if __name__ == "__main__":
    main(*sys.argv[1:])
