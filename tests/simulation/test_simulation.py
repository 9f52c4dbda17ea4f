"""The core in seeded simulation, and the same with known bugs switched on, which it has to find.

A failing seed is in the test's name and in the message; `World(seed).run()` replays it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import polars as pl
import pytest

import actors.shard_writer as shard_writer
from actors.gulp import Gulp
from actors.shard_writer import ShardWriter
from cluster.errors import Corrupt
from cluster.fold import Floors, Outcome
from cluster.model import Record
from cluster.stores.graph import WriteCounts
from tests.simulation.world import Broken, World

SEEDS, CHUNK = 200, 20
CHAOS_SEEDS, CHAOS_CHUNK = 10_000, 500
HUNT_SEEDS = 40
RunSeeds = Callable[[Iterable[int]], object]


def run_seed(seed: int) -> None:
    try:
        World(seed).run()
    except BaseException as error:
        error.add_note(f"replay: World({seed}).run()")
        raise


@pytest.fixture(scope="module")
def run_seeds() -> Iterator[RunSeeds]:
    """`run_seeds(seeds)`: worlds side by side, one a core at a time, each in one thread of a process of its own."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as processes:
        yield lambda seeds: deque(processes.map(run_seed, seeds), maxlen=0)


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_every_seed_ends_as_the_fold(run_seeds: RunSeeds, first: int) -> None:
    run_seeds(range(first, first + CHUNK))


@pytest.mark.chaos
@pytest.mark.parametrize("first", range(SEEDS + 1, CHAOS_SEEDS + 1, CHAOS_CHUNK))
def test_every_seed_ends_as_the_fold_for_long(run_seeds: RunSeeds, first: int) -> None:
    run_seeds(range(first, first + CHAOS_CHUNK))


def test_a_seed_replays_itself() -> None:
    one, other = World(7).run(), World(7).run()
    assert one.log.history == other.log.history
    assert {n: vars(s.memory) for n, s in one.shards.items()} == {n: vars(s.memory) for n, s in other.shards.items()}


def test_faults_do_happen() -> None:
    """The simulation is worth nothing if nothing goes wrong in it."""
    worlds = [World(seed).run() for seed in range(1, 13)]
    entries = sum(len(e) for w in worlds for e in w.log.history.values())
    appended_once = sum(len(w.sent) for w in worlds)
    assert sum(len(w.log.truth()) for w in worlds) > 1.1 * appended_once, "nothing was appended twice"
    assert sum(e > 3 for w in worlds for e in w.control.epochs.values()) > 3, "shards did not restart"
    assert any(w.changed_map for w in worlds)
    assert any(begin > 1 for w in worlds for begin in w.log.begin.values()), "the log was never trimmed"
    assert any(w.bad for w in worlds)
    assert entries > 500


# --- planted bugs: each is caught by the checks above


def _resume_from_the_logs_offsets(world: World, patch: pytest.MonkeyPatch) -> None:
    started = ShardWriter.__init__

    def init(self: ShardWriter, shard: Any, *more: Any, **named: Any) -> None:
        started(self, shard, *more, **named)
        kept = world.group_offsets.get(shard._process.name, {})
        self._at.update({p: max(at, self._at[p]) for p, at in kept.items() if p in self._at})

    patch.setattr(ShardWriter, "__init__", init)


def _cursor_before_its_batch(world: World, patch: pytest.MonkeyPatch) -> None:
    begin = ShardWriter._begin

    def early(self: ShardWriter, gulp: Gulp) -> None:
        if gulp.moves:
            self._shard.advance(self._fence, gulp.moves, WriteCounts())
        begin(self, gulp)

    patch.setattr(ShardWriter, "_begin", early)
    patch.setattr(ShardWriter, "_advance", lambda self, gulp, counts: None)
    patch.setattr(World, "_outcomes", lambda self, truth: None)  # the counts are no part of this bug


def _batch_not_folded(world: World, patch: pytest.MonkeyPatch) -> None:
    def unfolded(
        records: Iterable[Record], floors: Floors
    ) -> tuple[list[Record], list[tuple[Record, Outcome]], Counter[tuple[str, str]]]:
        kept = [r for r in records if not floors.hides(r)]
        return kept, [(r, Outcome.STALE) for r in records if floors.hides(r)], Counter()

    patch.setattr(shard_writer, "fold_batch", unfolded)
    patch.setattr(shard_writer, "split_by_register", lambda records: (list(records), []))
    patch.setattr(shard_writer, "alone", lambda rows, floors: pl.Series([False] * rows.height, dtype=pl.Boolean))


Plant = Callable[[World, pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Sequence[str], Plant | None]] = {
    "marked as seen before its effect": (("seen before effect",), None),
    "hash modulo the number of healthy shards": (("hash modulo the healthy",), None),
    "version from a clock": (("version from a clock",), None),
    "offset committed before the effect": (("offset before effect",), None),
    "resuming from the log's offset, not the shard's": (("advance without compare",), _resume_from_the_logs_offsets),
    "a late update revives a tombstone": (("no tombstones",), None),
    "a router that ignores the epoch": (("epoch ignored",), None),
    "cursor advanced before its batch": ((), _cursor_before_its_batch),
    "batch not folded by register": ((), _batch_not_folded),
    "an overlay makes a record visible": (("overlay is a fact",), None),
    "a rebuild of buckets that died is forgotten": (("rebuild forgotten",), None),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, plant = PLANTS[name]
    for seed in range(1, HUNT_SEEDS + 1):
        world = World(seed, planted=flags)
        with monkeypatch.context() as patch:
            if plant is not None:
                plant(world, patch)
            try:
                world.run()
            except (Broken, Corrupt):
                return
    pytest.fail(f"{name}: no seed up to {HUNT_SEEDS} found it")
