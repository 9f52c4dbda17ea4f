"""One installation without Ray for fault runs: log, two shards, control store, lake, and their loops as threads.

    with Installation(folder) as system:
        system.start()                                  # servers, then writers, lake appender, checkpoints
        history = Producer(system, events(seed, 3000)).send()
        … faults …
        system.settle()                                 # until every cursor is at the log's end
        check(system, history)

The loops are those that the actors run. `servers.py` has the servers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.lake_appender_actor import LakeAppenderLoop
from actors.shard_writer_actor import ShardWriterLoop
from cluster import batch
from cluster.config import LakeSettings, LogSettings, Settings, ShardSettings
from cluster.fold import hash_lines
from cluster.model import Record
from cluster.stores.log import LogGap
from cluster.stores.shard import StoredShard
from cluster.stores.shard_export import export_lines, state_lines
from tests.faults.servers import DEADLINE_S, Servers, wait_until

__all__ = ["DEADLINE_S", "Installation", "wait_until"]

Fault = Callable[[random.Random], None]


class Installation(Servers):
    """See the module, and `Servers`. `folder` is the state directory; it has to be short, for the sockets in it."""

    def __init__(
        self, folder: Path, shards: int = 2, partitions: int = 4, lease_s: float = 10.0, **sections: Any
    ) -> None:
        sections = {
            "log": LogSettings(partitions=partitions, block_ms=50, timeout_s=5.0, read_entries=8),
            "shards": ShardSettings(embedded=shards, write_rows=200, timeout_s=5.0, lease_s=lease_s),
            "lake": LakeSettings(commit_s=0.3),
            **sections,
        }
        self._set_up(Settings(state_dir=folder, **sections), [f"shard-{n}" for n in range(shards)])

    def _set_up(self, settings: Settings, shard_ids: list[str]) -> None:
        super().__init__(settings, shard_ids)
        self._loops: list[tuple[Any, threading.Thread]] = []
        self.writers: dict[str, ShardWriterLoop] = {}
        self.lake: LakeAppenderLoop | None = None

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.recording.stop()
        try:
            self.stop_loops()
        finally:
            self.end_servers()

    # --- loops

    def start(self, lake: bool = False) -> Installation:
        """Servers, then loops."""
        self.start_servers()
        self.start_loops(lake)
        return self

    def start_loops(self, lake: bool = False) -> None:
        """A writer for each shard, then the lake appender if it is wanted."""
        for shard in self.shard_ids:
            self.start_writer(shard)
        if lake:
            self.start_lake()

    def start_lake(self) -> None:
        """The lake appender's loop; where it runs already, nothing."""
        if self.lake is None:
            self.lake = LakeAppenderLoop(self.stack)
            self._run(self.lake, "lake")

    def stop_lake(self) -> None:
        """End it in order."""
        self._end(self.lake)
        self.lake = None

    def start_writer(self, shard: str) -> ShardWriterLoop:
        """Another writer loop of a shard."""
        loop = self.writers[shard] = ShardWriterLoop(self.stack, shard)
        self._run(loop, shard)
        return loop

    def stop_writer(self, shard: str) -> None:
        """End a shard's writer loop in order."""
        self._end(self.writers.pop(shard))

    def _end(self, loop: Any) -> None:
        loop.stop()
        for pair in [p for p in self._loops if p[0] is loop]:
            pair[1].join(DEADLINE_S)
            self._loops.remove(pair)

    def _run(self, loop: Any, name: str) -> None:
        thread = threading.Thread(target=loop.run, name=name, daemon=True)
        thread.start()
        self._loops.append((loop, thread))

    def stop_loops(self) -> None:
        """End all loops in order."""
        for loop, _ in self._loops:
            loop.stop()
        for loop, thread in self._loops:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), f"{loop} does not end"
        self._loops.clear()
        self.writers.clear()
        self.lake = None

    def faults(self) -> dict[str, Fault]:
        """What may happen to it by chance, by name; each returns when it is over."""

        def away(rnd: random.Random, name: str) -> None:
            self.kill(name)
            time.sleep(rnd.uniform(0.2, 2.0))
            self.restart(name)

        def still(rnd: random.Random, name: str) -> None:
            self.pause(name)
            time.sleep(rnd.uniform(1.0, 4.0))
            self.resume(name)

        found: dict[str, Fault] = {}
        for name in ("log", *self.shard_ids):
            found[f"{name} killed"] = partial(away, name=name)
            found[f"{name} stopped for a while"] = partial(still, name=name)
        return found | self.loop_faults()

    def loop_faults(self) -> dict[str, Fault]:
        """Those of its loops."""

        def writer(rnd: random.Random, shard: str) -> None:
            self.recording.mark(f"writer of {shard} ended")
            self.stop_writer(shard)
            time.sleep(rnd.uniform(0.2, 2.0))
            self.start_writer(shard)
            self.recording.mark(f"writer of {shard} started", fault=False)

        return {f"writer of {shard} ended": partial(writer, shard=shard) for shard in self.shard_ids}

    # --- what can be asked

    def opened(self) -> list[StoredShard]:
        """A connection of its own to each shard; close them."""
        return [self.stack.open_shard(shard) for shard in self.shard_ids]

    def positions(self, shard: str) -> dict[int, int]:
        """A shard's cursors as the shard itself has them."""
        opened = self.stack.open_shard(shard)
        try:
            return {p: c.at for p, c in opened.cursors().items()}
        finally:
            opened.close()

    def ends(self) -> dict[int, int]:
        """The log's ends."""
        return self.log.ends()

    def is_current(self, shard: str) -> bool:
        """Whether a shard serves and has applied all that the log has for it."""
        opened = self.stack.open_shard(shard)
        try:
            state = opened.state()
            epoch = self.stack.control.shards.get(shard).epoch
            at, ends = opened.cursors(), self.ends()
            mine = self.stack.current_map().partitions_of(shard)
            serves = state is not None and state.serving == state.raised == epoch
            return serves and all(p in at and at[p].at >= ends[p] for p in mine)
        finally:
            opened.close()

    def settle(self, *shards: str, deadline_s: float = 0.0) -> None:
        """Waits until shards (all) have applied the log and serve; no less than the stack's own deadline."""
        for shard in shards or self.shard_ids:
            writer = self.writers.get(shard)
            wait_until(
                lambda shard=shard: self.is_current(shard),  # type: ignore[misc]
                max(deadline_s, self.deadline_s),
                f"{shard} current; its writer: {writer.status if writer else None}",
            )

    def begins(self) -> dict[int, int]:
        """The log's first entries."""
        return self.log.begins()

    def settle_partly(self, shard: str) -> None:
        """Waits until a shard has applied what the log has now; more may come meanwhile."""
        ends = self.ends()
        mine = self.stack.current_map().partitions_of(shard)
        wait_until(lambda: all(self.positions(shard).get(p, 0) >= ends[p] for p in mine), message=f"{shard} goes on")

    def log_records(self) -> list[tuple[int, int, list[Record]]]:
        """(partition, number, records) of every entry that log and lake have, in order."""
        return list(self.entries())

    def entries(self) -> Iterator[tuple[int, int, list[Record]]]:
        """The same, one after the other; what is trimmed meanwhile is read from the lake."""
        for partition, end in self.log.ends().items():
            after = 0
            while after < end:
                begin = self.log.begins()[partition]
                if after + 1 < begin:
                    with self.stack.open_lake() as lake:
                        for entry in lake.entries(partition, after, min(end, begin - 1)):
                            yield partition, entry.number, batch.from_arrow(entry.batch)
                    after = begin - 1
                with suppress(LogGap):
                    for one in self.log.read(partition, after, 64, 8 << 20):
                        yield partition, one.number, batch.decode(one.data)
                        after = one.number

    def hashes(self) -> tuple[str, str]:
        """Hashes of export and state, over all shards."""
        shards = self.opened()
        try:
            return hash_lines(export_lines(shards)), hash_lines(state_lines(shards))
        finally:
            for shard in shards:
                shard.close()
