"""A log that ends below what its consumers have is mended: a new generation of it is opened, before anybody appends.
One that is not appended to by as many partitions as the map says gets them the same way (`repartition`).

    what everybody has → who holds what the log lacks; where nobody does, an operator's word is wanted
        → writers pause, the lake goes on in the new generation: whoever worked in the one before is refused from now on
        → the generation is opened, by compare-and-set in the log itself: appenders of the one before are refused
        → what the lake has is appended again, number for number; numbers that only shards have taken get empty entries
        → facts that are in shards alone are appended behind them → everybody may open the log

Positions stay what they were: an entry has the number that it had, or holds nothing. So cursors, tokens and snapshots
of before go on. What a shard counted in entries that are lost is taken off when its writer starts (`shard_counts`).
Whoever calls this may be killed at any moment: the same again goes on, since the log says how far it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from actors.away import note_away
from actors.log_damage import damage_of
from actors.log_facts import COLUMNS, KEY, facts_of_shard, known_beside, pages
from actors.lost_tail import lost_since, ranges_text
from actors.ownership import alone, paused
from actors.stack import Stack
from actors.stages.route import entries_of
from cluster import batch
from cluster.errors import Conflict, Corrupt
from cluster.model import Kind, Record
from cluster.shard_map import ShardMap
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.graph import GraphShard
from cluster.stores.log import Append, EventLog, Generation, Seam, all_partitions
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from cluster.stores.lake import Lake

LOG = Log("intelgraph.log")
ACCEPTED, OPENED, MENDED = "log.loss_accepted", "log.generation_opened", "log.mended"
_NODE, _SUBJECT = "intelgraph up", "log"
_APPENDS, _TRIES = 256, 5


class LostForGood(Corrupt):
    """Entries that were in the log are held by nobody.

    Args:
        lost: as `Damage.lost_text`.
    """

    def __init__(self, lost: str) -> None:
        super().__init__(
            f"the event log ends below what was read from it, and nobody holds its entries {lost}"
            " (partition:first-last), neither the lake nor all shards that they were for. Restore newer files of the"
            f" log; or, if there are none, say `intelgraph log accept-loss {lost}`, start again, and load the sources"
            " anew that had written there"
        )
        self.lost = lost

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.lost,)


@dataclass(slots=True)
class Mended:
    """What was done.

    Args:
        generation: that was opened.
        partitions: that it is appended to by.
        again: entries appended again from the lake. empty: entries that hold nothing.
        facts: `tenant/source` → facts that were in shards alone, appended anew; floors and priorities too.
        pushes: answers that had promised lost entries, and are given no more.
    """

    generation: int
    seams: Mapping[int, Seam]
    partitions: int
    again: int = 0
    empty: int = 0
    facts: dict[str, int] = field(default_factory=dict)
    pushes: int = 0

    @property
    def note(self) -> str:
        """For people."""
        opened = f"generation {self.generation} of it was opened (audit --actions)"
        if all(seam.resumed == seam.end for seam in self.seams.values()):
            return f"the event log has {self.partitions} partitions now: {opened}"
        return f"the event log had lost its tail: {opened}"

    def as_plain(self) -> dict[str, object]:
        """Plain values, of partitions that lost something."""
        changed = {str(p): list(seam) for p, seam in self.seams.items() if seam.resumed > seam.end}
        return {
            "generation": self.generation, "partitions": self.partitions,
            "end_kept_resumed": changed, "entries_again": self.again,
            "entries_empty": self.empty, "facts_of_shards": self.facts,
            "pushes_forgotten": self.pushes,
        }  # fmt: skip


def mend(stack: Stack, failpoint: Failpoint = no_failpoint) -> Mended | None:
    """Make the log whole again, if it is not; to be called before anybody appends. Safe to call twice.

    Args:
        failpoint: called with `fenced`, `opened`, `again`, `empty`, `facts`, `audited`.

    Returns:
        what was done; None where the log has all that anybody has.

    Raises:
        Corrupt: this is another log than the one that is known.
        LostForGood: see there. Nothing has changed, unless a shard has come back older since a start that was cut off.
        Unavailable: a shard or the lake, which may hold what is lost, does not answer. Nothing has changed.
    """
    with closing(stack.open_log(mending=True)) as log:
        stack.control.positions.bind_log(log.identity)
        if not log.is_unfinished and not _open_generation(stack, log, failpoint):
            return None
        failpoint("opened")
        filling = _Filling(stack, log, failpoint)
        if not log.generations[-1].is_whole:  # else it has another number of partitions, and nothing to be filled with
            filling.fill()
            stack.control.audit.append(INSTALLATION, _NODE, MENDED, _SUBJECT, time.time(), filling.done.as_plain())
            LOG.warning("log_mended", **filling.done.as_plain())
            failpoint("audited")
        log.finish_generation()
        stack.control.positions.bind_log(log.identity)
    if filling.done.partitions != stack.current_map().partitions:  # a start that was cut off had begun it for another
        return mend(stack, failpoint)
    return filling.done


def accept_loss(stack: Stack, lost: str, actor: str) -> None:
    """An operator's word that these entries may be lost; counts for them alone. Safe to call twice."""
    stack.control.audit.append(INSTALLATION, actor, ACCEPTED, _SUBJECT, time.time(), {"lost": lost})


def _open_generation(stack: Stack, log: EventLog, failpoint: Failpoint) -> bool:
    """Whether one had to be opened."""
    current = stack.control.shard_maps.current()
    if current is None:
        return False
    silent: set[str] = set()
    damage = damage_of(stack, log.identity.name, log.ends, current, all_answer=False, silent=silent)
    if damage.none and _is_as(log, current):
        note_away(stack.control.audit, silent, {p: seam.end for p, seam in damage.seams.items()}, time.time())
        return False
    for _ in range(_TRIES):
        try:
            return _opened(stack, log, current, failpoint)
        except Conflict as error:  # somebody of before was faster with a last word: what everybody has is another now
            LOG.warning("log_generation_conflict", reason=str(error))
    return _opened(stack, log, current, failpoint)


def _is_as(log: EventLog, current: ShardMap) -> bool:
    """Whether the log has the partitions of the map: also those of a number that was given up before the log had it,
    since shards read them."""
    said = all_partitions(log.identity, log.generations)  # a topic may have got more before that was said
    return log.identity.partitions == current.partitions and said >= current.all_partitions


def _opened(stack: Stack, log: EventLog, current: ShardMap, failpoint: Failpoint) -> bool:
    _accepted(stack, damage_of(stack, log.identity.name, log.ends, current, all_answer=True).lost_text)
    with ExitStack() as held:
        held.enter_context(alone(stack, "opening a generation of the log"))
        held.enter_context(paused(stack, current.shards))
        newest = stack.control.positions.newest_log()
        number = max(log.identity.generation, newest.generation if newest else 0) + 1
        if (lake := stack.lake_address.find()) is not None:
            with lake:
                number = max(number, lake.positions().generation + 1)
                lake.begin_generation(log.identity.name, number)
        failpoint("fenced")
        damage = damage_of(stack, log.identity.name, log.ends, current, all_answer=True)
        if damage.none and _is_as(log, current):
            return False
        _accepted(stack, damage.lost_text)
        log.begin_generation(Generation(number, damage.seams, current.partitions))
    said = Mended(number, damage.seams, current.partitions).as_plain()
    stack.control.audit.append(INSTALLATION, _NODE, OPENED, _SUBJECT, time.time(), {**said, "lost": damage.lost_text})
    LOG.warning("log_generation_opened", **said, lost=damage.lost_text)
    return True


def _accepted(stack: Stack, lost: str) -> None:
    """Nothing, if nothing is lost, or a person has said that it may be. Raises LostForGood."""
    words = (entry for entry in stack.control.audit.every(INSTALLATION) if entry.action == ACCEPTED)
    if lost and not any(word.detail.get("lost") == lost for word in words):
        raise LostForGood(lost)


class _Filling:
    """Fills the newest generation of a log, from where it is."""

    def __init__(self, stack: Stack, log: EventLog, failpoint: Failpoint) -> None:
        self._stack, self._log, self._failpoint = stack, log, failpoint
        self._generation = log.generations[-1]
        self._map = replace(stack.current_map(), partitions=log.identity.partitions)  # it may be of another by now
        self.done = Mended(self._generation.number, self._generation.seams, self._map.partitions)

    def fill(self) -> None:
        """See the module."""
        lake = self._stack.lake_address.find()
        with ExitStack() as opened:
            if lake is not None:
                opened.enter_context(lake)
            for partition, seam in sorted(self._generation.seams.items()):
                self._again(lake, partition, seam)
                self._empty(partition, seam)
            shards = {id: opened.enter_context(closing(self._stack.open_shard(id))) for id in self._map.shards}
            self._check_held(shards)
            for partition in range(self._map.partitions):
                self._facts_of_shards(lake, partition, shards)
        lost_beyond = {p: seam.kept for p, seam in self._generation.seams.items()}
        self.done.pushes = self._stack.control.pushes.forget_beyond(lost_beyond)

    def _check_held(self, shards: Mapping[str, GraphShard]) -> None:
        at = {id: {p: c.at for p, c in shard.cursors().items()} for id, shard in shards.items()}
        owners = {partition: self._map.shards_of_partition(partition) for partition in self._generation.seams}
        _accepted(self._stack, ranges_text(lost_since(self._generation.seams, at, owners)))

    def _again(self, lake: Lake | None, partition: int, seam: Seam) -> None:
        end = self._log.ends()[partition]
        if end >= seam.kept:
            return
        if lake is None:
            raise Corrupt(f"the lake, which holds entries {end + 1} to {seam.kept} of partition {partition}, is gone")
        for entry in lake.entries(partition, end, seam.kept):
            facts = sum(kind < Kind.FLOOR for kind in entry.batch.column("kind").to_pylist())
            data = batch.encode(batch.from_arrow(entry.batch)) if entry.batch.num_rows else b""
            self._append([Append(partition, data, facts)], entry.number)
            self.done.again += 1
            self._failpoint("again")

    def _empty(self, partition: int, seam: Seam) -> None:
        end = self._log.ends()[partition]
        while end < seam.resumed:
            count = min(_APPENDS, seam.resumed - end)
            self._append([Append(partition, b"", 0)] * count, end + 1)
            end, self.done.empty = end + count, self.done.empty + count
            self._failpoint("empty")

    def _append(self, entries: list[Append], first: int) -> None:
        numbers = self._log.append(entries)
        if numbers != list(range(first, first + len(entries))):
            raise Corrupt(f"another appends to the log while it is mended: entry {first} has come to be {numbers[0]}")

    def _facts_of_shards(self, lake: Lake | None, partition: int, shards: Mapping[str, GraphShard]) -> None:
        known = known_beside(self._log, lake, self._map, partition)
        for shard_id in self._map.owners_of(partition):
            held = facts_of_shard(shards[shard_id], self._map, shard_id, partition)
            for page in pages(held):
                frame = batch.frame_of(page)
                alone_there = frame.join(known, on=list(KEY), how="anti").unique()
                if alone_there.height:
                    self._say_again(partition, batch.records_of(alone_there))
                    known = pl.concat([known, alone_there.select(COLUMNS)])
        self._failpoint("facts")

    def _say_again(self, partition: int, records: list[Record]) -> None:
        self._log.append(entries_of(partition, records, self._stack.settings.log.entry_bytes))
        for record in records:
            name = f"{record.tenant}/{record.source}"
            self.done.facts[name] = self.done.facts.get(name, 0) + 1
