"""Row 16 of the fault list on a running system: snapshots and compactions that die at any step."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster.config import LakeSettings
from cluster.errors import Corrupt
from cluster.fold import Fold
from cluster.model import Record
from tests.faults.checks import check
from tests.faults.harness import Installation, wait_until
from tests.faults.mortal import Mortal
from tests.faults.producer import History, Producer, events
from tests.faults.seeds import is_long, seeds
from workloads.snapshot.export import export_lines, state_lines
from workloads.snapshot.layout import Manifest
from workloads.snapshot.prune import prune
from workloads.snapshot.read import Snapshot, list_snapshots, open_snapshot
from workloads.snapshot.verify import verify

pytestmark = [pytest.mark.services]
APPENDING = LakeSettings(commit_s=0.05, keep_metadata=4)
COMPACTING = LakeSettings(compact_files=3, keep_metadata=4)
PIECES, PIECE = 5, 10
"""Commits of their own, each with a few events: files enough for a compaction."""
PUBLICATION = 4
"""Manifest and pointer are written and renamed: a snapshot's last steps."""


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_snapshots_and_compactions_die_at_any_step(server_root: Path, seed: int) -> None:
    """Row 16: readers see the old snapshot or the new one, whole, and the lake holds each entry once, while more comes
    in; one flipped byte is found."""
    rnd, long = random.Random(seed), is_long(seed)
    records, rounds = events(seed, 20_000 if long else 1_200), 6 if long else 2
    with Installation(server_root / f"sn{seed}", lake=APPENDING) as system:
        system.start(lake=True)
        folder, share, histories = system.stack.state_dir / "snapshots", -(-len(records) // rounds), []
        with Mortal(system.stack.state_dir / "lake", folder, COMPACTING) as mortal:
            turns = Turns(system, mortal, folder, rnd)
            for at in range(0, len(records), share):
                first = at + PIECES * PIECE
                histories += [turns.committed(records[n : n + PIECE]) for n in range(at, first, PIECE)]
                producer = Producer(system, records[first : at + share]).start()
                turns.die()
                histories.append(producer.join())
                turns.compact()
                turns.complete()
        system.settle()
        check(system, *histories)
        turns.finish()
        assert turns.died >= 2 * rounds
        assert {"data.write", "metadata.write", "commit", "registers.write", "pointer.rename"} <= turns.seen
        damaged(folder, rnd)
        system.stop_loops()


class Turns:
    """What is done to the lake and to the snapshots, and what must hold after each."""

    def __init__(self, system: Installation, mortal: Mortal, folder: Path, rnd: random.Random) -> None:
        self._system, self._mortal, self._folder, self._rnd = system, mortal, folder, rnd
        self._steps = {"snapshot": 1, "compaction": 1}
        self._held: list[Snapshot] = []
        self.died = 0
        self.seen: set[str] = set()

    def committed(self, records: list[Record]) -> History:
        """Sends events that the lake gets in a commit of their own."""
        history = Producer(self._system, records).send()
        self._lake_has_everything()
        return history

    def die(self) -> None:
        """A snapshot dies at any step, and one at a step of its publication: who reads sees the one before."""
        for last in (0, PUBLICATION):
            before = list_snapshots(self._folder)
            if self._dies("snapshot", last):
                self._same(before)

    def compact(self) -> None:
        """A compaction dies, and the next one comes to its end: the lake holds what it held."""
        self._lake_has_everything()
        self._dies("compaction")
        self._lake_is_whole()
        self._ends("compaction")
        self._lake_is_whole()

    def complete(self) -> None:
        """A snapshot comes to its end: it is the fold of what the lake had, and those before stay as they were."""
        self._lake_has_everything()
        self._ends("snapshot")
        snapshot = open_snapshot(self._folder)
        self._held.append(snapshot)
        fold = Fold()
        for partition, number, rows in self._system.log_records():
            if number <= snapshot.manifest.positions.of(partition).number:
                fold.apply_all(rows)
        assert state_lines(snapshot) == fold.state_lines()
        shown = [line for tenant in snapshot.tenants() for line in export_lines(snapshot, tenant)]
        assert sorted(shown) == fold.export_lines()
        assert all(verify(held, deep=False).is_whole for held in self._held), "a snapshot changed under its reader"

    def finish(self) -> None:
        """Nothing is left of those that died, once what is old is removed."""
        for held in self._held:
            held.close()
        prune(self._folder, keep=2)
        kept = {manifest.id for manifest in list_snapshots(self._folder)[-2:]}
        assert {path.name for path in self._folder.iterdir() if path.is_dir()} == kept
        assert not list(self._folder.rglob("*.aside"))

    def _dies(self, what: str, last: int = 0) -> bool:
        steps = self._steps[what]
        died = not self._mortal.run(what, self._rnd.randint(max(1, steps - last + 1) if last else 1, steps))
        self.died += died
        return died

    def _ends(self, what: str) -> None:
        steps = self._mortal.run(what)
        self._steps[what] = len(steps)
        self.seen.update(steps)

    def _same(self, before: list[Manifest]) -> None:
        assert [found.id for found in list_snapshots(self._folder)] == [found.id for found in before]
        if before:
            with open_snapshot(self._folder) as snapshot:
                assert verify(snapshot).is_whole

    def _lake_has_everything(self) -> None:
        ends = self._system.ends()

        def reached() -> bool:
            with self._system.stack.open_lake() as lake:
                at = lake.positions()
            return all(at.of(partition).number >= end for partition, end in ends.items())

        wait_until(reached, message="the lake has what the log has")

    def _lake_is_whole(self) -> None:
        logged = self._system.log_records()
        with self._system.stack.open_lake() as lake:
            for partition, end in self._system.ends().items():
                kept = [(entry.number, entry.batch.num_rows) for entry in lake.entries(partition, 0)]
                assert kept == [(n, len(rows)) for p, n, rows in logged if p == partition][: len(kept)]
                assert len(kept) == end


def damaged(folder: Path, rnd: random.Random) -> None:
    """One byte of the newest snapshot is another: it is found, whichever it is."""
    with open_snapshot(folder) as snapshot:
        files = sorted(path for path in snapshot.place.local.rglob("*") if path.is_file() and path.stat().st_size)
    for path in rnd.sample(files, min(5, len(files))):
        whole = path.read_bytes()
        at = rnd.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rnd.randrange(8)]) + whole[at + 1 :])
        assert not is_whole(folder), f"byte {at} of {path.name} is another, and nobody sees it"
        path.write_bytes(whole)
        assert is_whole(folder)


def is_whole(folder: Path) -> bool:
    try:
        with open_snapshot(folder) as snapshot:
            return verify(snapshot).is_whole
    except Corrupt:
        return False
