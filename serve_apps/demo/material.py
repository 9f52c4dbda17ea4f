"""What the demo takes in: this machine's Python distributions and, where there is a dpkg database, its packages."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.embedded.paths import private_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from serve_apps.supply_chain import Written

FOLDER = "demo"
LICENCE_NOTE = "metadata of installed packages, each under its own licence"


@dataclass(frozen=True, slots=True)
class Material:
    """One tenant's file of events."""

    tenant: str
    source: str
    written: Written


def gather(state_dir: Path, workers: int, bars: Progress) -> list[Material]:
    """Write the events of every tenant that this machine has facts for. Safe to repeat: the same facts, the same bytes.

    Args:
        workers: processes that parse Python sources.

    Raises:
        OSError: the disk is full, or packages cannot be read.
    """
    folder = private_folder(state_dir / FOLDER)
    found = [_python(folder, workers, bars), _debian(folder, bars)]
    return [one for one in found if one.written.events]


def _python(folder: Path, workers: int, bars: Progress) -> Material:
    from serve_apps.supply_chain import PYTHON_SOURCE, PYTHON_TENANT, python_events, write_events

    task = bars.add_task("reading Python packages", total=None, detail="")

    def told(done: int, total: int) -> None:
        bars.update(task, completed=done, total=total, detail=f"{done} of {total} distributions")

    events = python_events(Path(sysconfig.get_path("purelib")), workers, told)
    return Material(PYTHON_TENANT, PYTHON_SOURCE, write_events(events, folder / "python.jsonl"))


def _debian(folder: Path, bars: Progress) -> Material:
    from serve_apps.supply_chain import DEBIAN_SOURCE, DEBIAN_TENANT, debian_events, write_events

    task = bars.add_task("reading Debian packages", total=None, detail="")
    written = write_events(debian_events(), folder / "debian.jsonl")
    bars.update(task, completed=1, total=1, detail=f"{written.events:,} events")
    return Material(DEBIAN_TENANT, DEBIAN_SOURCE, written)
