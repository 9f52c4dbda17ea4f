"""A control store that is not what the log's control partition says is made so, before anything is served.

    store behind the log ─► its missing entries are put in     (an older copy was restored; a commit was cut off)
    store behind what the log still has ─► the newest checkpoint, then what came after it
    store ahead of the log ─► the log lost its tail: its numbers go on behind the store's, from a checkpoint of it
    a log without entries ─► the store is bound to it, from a checkpoint if it has rows

A checkpoint is a copy of the store that names the entry up to which it is complete: `control/checkpoint-<number>.db`.
Entries up to the checkpoint before the newest are trimmed. Whoever calls this may be killed at any moment: the same
again goes on.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.stack import Stack
from cluster.embedded.paths import private_folder
from cluster.errors import Corrupt, IntelGraphError
from cluster.stores import control_changes as changes
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_journal import PARTITION, replay
from cluster.stores.files import Failpoint, aside_of, fsync_folder, no_failpoint
from cluster.stores.log import Append, EventLog, Generation, Seam
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.control")
_FILE = re.compile(r"checkpoint-([0-9]{1,19})\.db\Z")
_EMPTY_ENTRIES = 256
_FLUSH_S, _PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done.

    Args:
        change_sets: of the log, put into the store.
        checkpoint: the store was replaced by one, or written to one; the entry that it names.
        lost: entries that the log had lost: the store has what they said.
        number: the store is complete up to this entry.
    """

    change_sets: int
    checkpoint: int | None
    lost: int
    number: int

    @property
    def note(self) -> str:
        """For people; empty if nothing was amiss."""
        if self.lost:
            return f"the log's control partition had lost {self.lost} entries: it goes on behind them"
        if self.change_sets:
            return f"the control store was older than the log: {self.change_sets} changes were put into it"
        return ""


def make_whole(stack: Stack, failpoint: Failpoint = no_failpoint) -> Recovered:
    """Makes store and control partition one again, and has every change in the log first from now on.

    To be called while nobody else works, with the log's server up. Safe to call twice.

    Args:
        failpoint: called with `filled`, `checkpoint`, `restored`, `replayed`.

    Raises:
        Corrupt: it is another log; or entries that the store lacks are trimmed, and there is no checkpoint behind them.
        Unavailable: the log does not answer.
    """
    with closing(stack.open_control_log()) as log:
        found = _Recovery(stack, log, failpoint).run()
    if found.note:
        LOG.warning("control_store_recovered", change_sets=found.change_sets, checkpoint=found.checkpoint,
                    lost=found.lost, number=found.number)  # fmt: skip
    return found


def seal(stack: Stack) -> None:
    """Everything is in the log; what commands change from now on, the next start appends. Safe to call twice.

    Where the log does not answer, commands that write are refused until the next start.
    """
    try:
        stack.control.database.catch_up()
        stack.control.database.flush()
    except IntelGraphError as error:  # what the log may have would come over what commands change now: refuse these
        LOG.error("control_store_not_sealed", error)
        return
    with stack.control.database.write(later=True) as connection:
        if (bound := changes.number_of(connection)) is not None:
            changes.bind(connection, bound.name, bound.number, serving=False, size=bound.bytes)


def keep(stack: Stack, stopping: threading.Event) -> None:
    """Appends what may come later, once a second, and writes checkpoints, until told to stop. For a thread."""
    due = 0.0
    while not stopping.wait(_FLUSH_S):
        try:
            stack.control.database.flush()
            with stack.control.database.read() as connection:
                bound = changes.number_of(connection)
            if bound is None or bound.bytes < stack.settings.log.control_bytes // 2 or time.monotonic() < due:
                continue
            with closing(stack.open_control_log()) as log:
                checkpoint(stack, log)
        except Exception as error:  # a thread that dies keeps nothing ever after
            due = time.monotonic() + _PAUSE_S  # a copy that fails on a full disk is not begun again at once
            LOG.error("control_partition_not_kept", error)


def checkpoint(stack: Stack, log: EventLog, failpoint: Failpoint = no_failpoint) -> int:
    """Writes a checkpoint of the store, and trims what came before the one that it takes the place of.

    Returns:
        the entry up to which it is complete.
    """
    before = _newest(stack)
    number = _copy(stack)
    failpoint("checkpoint")
    if before is not None and before < number:
        log.trim(PARTITION, before + 1)
    for path, of in _checkpoints(stack):
        if of < number:
            path.unlink(missing_ok=True)
    with stack.control.database.write(later=True) as connection:
        if (bound := changes.number_of(connection)) is not None:
            changes.bind(connection, bound.name, bound.number, serving=bool(bound.serving))
    LOG.info("control_checkpoint_written", number=number)
    return number


class _Recovery:
    """One start."""

    def __init__(self, stack: Stack, log: EventLog, failpoint: Failpoint) -> None:
        self._stack, self._log, self._failpoint = stack, log, failpoint
        self._database: ControlDatabase = stack.control.database
        self._checkpoint: int | None = None
        self._change_sets = self._lost = 0

    def run(self) -> Recovered:
        """See `make_whole`."""
        _sweep(self._stack)
        self._finish_generation()
        bound, name, end = self._bound(), self._log.identity.name, self._log.ends()[PARTITION]
        number = 0 if bound is None else int(bound.number)
        if end == 0 and (bound is None or bound.name != name):
            number = self._first(bound is not None)
        elif bound is not None and bound.name != name:
            raise Corrupt(
                f"the log's control partition ({name[:8]}) is not the one that this control store belongs to"
                f" ({bound.name[:8]}): restore the log's files, or the store's"
            )
        elif number > end:
            self._lost = number - end
            self._go_on_behind(end, number)
        self._replay(number)
        self._database.flush()
        return Recovered(self._change_sets, self._checkpoint, self._lost, int(self._known().number))

    def _first(self, had_another: bool) -> int:
        """The partition has no entries: the store's rows, if there are any, are before them. Returns its number."""
        if had_another:  # a log that was lost whole is another one, which has to be said before this one is filled
            with closing(self._stack.open_log(mending=True)) as whole:
                self._stack.control.positions.bind_log(whole.identity)
        with self._database.read() as connection:
            if changes.is_empty(connection):
                return 0
        self._go_on_behind(0, 1)
        return 1

    def _bound(self) -> Any:
        with self._database.read() as connection:
            return changes.number_of(connection)

    def _known(self) -> Any:
        bound = self._bound()
        if bound is None:
            raise Corrupt("control store: it does not say any more up to where it is complete; restore a backup")
        return bound

    def _bind(self, number: int) -> None:
        with self._database.write(later=True) as connection:
            changes.bind(connection, self._log.identity.name, number, serving=False)

    def _go_on_behind(self, end: int, number: int) -> None:
        """The partition goes on behind `number`; what the entries up to it said is in a checkpoint of the store."""
        seam = Seam(end, end, number)
        self._log.begin_generation(Generation(self._log.identity.generation + 1, {PARTITION: seam}))
        self._fill(number)
        self._failpoint("filled")
        self._bind(number)
        self._checkpoint = _copy(self._stack)
        self._failpoint("checkpoint")
        self._log.finish_generation()
        self._log.trim(PARTITION, number + 1)

    def _finish_generation(self) -> None:
        """One that a start which was cut off has left.

        Raises:
            Corrupt: the store was replaced by an older one meanwhile, and the checkpoint was not written yet.
        """
        if not self._log.is_unfinished:
            return
        seam, bound = self._log.generations[-1].seams[PARTITION], self._bound()
        resumed = seam.resumed
        self._fill(resumed)
        is_first = seam.end == 0 and (bound is None or bound.name != self._log.identity.name)
        if is_first or (bound is not None and bound.number == resumed):
            self._bind(resumed)
            self._checkpoint = _copy(self._stack)
        elif (_newest(self._stack) or 0) < resumed:
            raise Corrupt(
                f"the log had lost its control partition's tail, and the control store, which had it up to entry"
                f" {resumed}, is another one now: restore that, or its checkpoint ({_folder(self._stack)})"
            )
        self._log.finish_generation()
        self._log.trim(PARTITION, resumed + 1)

    def _fill(self, number: int) -> None:
        while (end := self._log.ends()[PARTITION]) < number:
            self._log.append([Append(PARTITION, b"", 0)] * min(_EMPTY_ENTRIES, number - end))

    def _replay(self, number: int) -> None:
        begin = self._log.begins()[PARTITION]
        if number + 1 < begin:
            number = self._restore(number, begin)
        bound = self._bound()
        with self._database.write(later=True) as connection:
            size = 0 if bound is None else int(bound.bytes)
            changes.bind(connection, self._log.identity.name, number, serving=True, size=size)
            self._change_sets = replay(connection, self._log, number).change_sets
        self._failpoint("replayed")

    def _restore(self, number: int, begin: int) -> int:
        end = self._log.ends()[PARTITION]  # what is beyond it is of a log that was lost
        newest = max((found for _, found in _checkpoints(self._stack) if found <= end), default=None)
        if newest is None or newest + 1 < begin:
            raise Corrupt(
                f"the control store is complete up to entry {number} of the log's control partition, which begins at"
                f" {begin}, and there is no newer checkpoint ({_folder(self._stack)}): restore a newer backup of"
                " control.db, or of that folder"
            )
        with self._database.read() as connection:
            if noted := changes.pending(connection):
                LOG.warning("control_store_changes_overwritten", rows=noted)
        self._database.copy_from(_path(self._stack, newest))
        self._database.migrate()
        self._checkpoint = newest
        self._failpoint("restored")
        return newest


def _folder(stack: Stack) -> Path:
    return stack.state_dir / "control"


def _path(stack: Stack, number: int) -> Path:
    return _folder(stack) / f"checkpoint-{number}.db"


def _checkpoints(stack: Stack) -> list[tuple[Path, int]]:
    if not _folder(stack).is_dir():
        return []
    found = [(path, _FILE.match(path.name)) for path in _folder(stack).iterdir()]
    return [(path, int(match[1])) for path, match in found if match]


def _sweep(stack: Stack) -> None:
    """Removes copies that were cut off."""
    if _folder(stack).is_dir():
        for path in _folder(stack).iterdir():
            if not _FILE.match(path.name):
                path.unlink(missing_ok=True)


def _newest(stack: Stack) -> int | None:
    return max((number for _, number in _checkpoints(stack)), default=None)


def _copy(stack: Stack) -> int:
    """A checkpoint of the store as it is; the entry that it names. Durable when this returns."""
    folder = private_folder(_folder(stack))
    aside = aside_of(folder / "checkpoint.db")
    try:
        stack.control.database.copy_to(aside)
        aside.chmod(0o600)
        with closing(sqlite3.connect(aside)) as copy:
            (number,) = copy.execute("SELECT number FROM control_log").fetchone()
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.rename(_path(stack, number))
    finally:
        aside.unlink(missing_ok=True)
    fsync_folder(folder)
    return int(number)
