"""Checkpoints of embedded shards: saved in the background while they change, and what the log need no longer keep.

The cursors are read before the save begins, so the saved file has at least what they say; only then does the log
learn that these entries are durable on the shard. A Neo4j shard is not saved: what it has committed is on its disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from actors.stack import Stack
from cluster.embedded import Running, alive, checkpoint
from cluster.errors import IntelGraphError, Unavailable
from cluster.shard_map import ShardMap
from cluster.stores.control_positions import ConsumerPositions
from cluster.stores.graph import GraphShard
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.checkpoint")


class ShardCheckpoints:
    """Saves one shard when it has changed, and says what is durable. For one thread.

    Args:
        open_shard: a connection of this object's own.
        positions: where the log's consumers say what is durable.
        partitions: those that have entries for this shard (`ShardMap.partitions_of`), and no others: the log would
            keep theirs for ever.
    """

    def __init__(
        self,
        shard_id: str,
        open_shard: Callable[[], GraphShard],
        positions: ConsumerPositions,
        partitions: Sequence[int],
    ) -> None:
        self._shard_id, self._positions = shard_id, positions
        self._shard = open_shard()
        self._partitions = frozenset(partitions)
        self._saved: dict[int, tuple[int, int]] | None = None
        positions.remove(shard_id)  # what it had of other partitions, under an earlier map, holds the log no longer
        positions.register(shard_id, partitions, time.time())

    def save(self, running: Running) -> bool:
        """Save if a cursor has moved, or its writer is another, since the last save; whether it was saved.

        A shard that was rebuilt comes back to the same cursors, by another writer. Safe to call twice.

        Raises:
            Unavailable: the shard does not answer, or its disk is full; it goes on and the log keeps what is missing.
        """
        at = self._cursors()
        if at == self._saved:
            return False
        done = checkpoint(running)
        if not alive(running):  # the cursors may be those of the process before, and the file that of the next
            raise Unavailable(f"{self._shard_id} was restarted during its checkpoint; the next one counts")
        self._report(at)
        LOG.debug("checkpoint", shard=self._shard_id, seconds=round(done.seconds, 3), bytes=done.file_bytes)
        return True

    def note(self) -> bool:
        """Say how far a database is that has on its disk what it has acknowledged; whether that is new.

        Raises:
            Unavailable: the shard does not answer.
        """
        at = self._cursors()
        if at == self._saved:
            return False
        self._report(at)
        return True

    def _cursors(self) -> dict[int, tuple[int, int]]:
        """By partition, where the shard is, and under which lease."""
        return {p: (c.at, c.lease) for p, c in self._shard.cursors().items() if p in self._partitions}

    def _report(self, at: dict[int, tuple[int, int]]) -> None:
        self._positions.report_durable(self._shard_id, {p: number for p, (number, _) in at.items()}, time.time())
        self._saved = at

    def close(self) -> None:
        """Close the connection."""
        self._shard.close()


class CheckpointRounds:
    """`ShardCheckpoints` under whichever map there is. For one thread."""

    def __init__(self, shard_id: str, stack: Stack) -> None:
        self._shard_id, self._stack = shard_id, stack
        self._saves: ShardCheckpoints | None = None
        self._revision = -1

    def turn(self, running: Running | None) -> float:
        """Save if there is something to save; an operating error is logged, and the next turn tries again.

        Saving takes CPU, and memory that was shared with it is copied as it changes: after a long one the next waits,
        so that it is a small share of the time.

        Returns:
            seconds until the next turn.

        Args:
            running: the shard's server; None for one that has its database elsewhere.
        """
        limits, began = self._stack.settings.shards, time.monotonic()
        took_s = 0.0
        try:
            saves = self._under(self._stack.current_map())
            if running is None:
                saves.note()
            elif saves.save(running):
                took_s = time.monotonic() - began
        except IntelGraphError as error:
            LOG.warning("checkpoint_failed", shard=self._shard_id, reason=str(error))
        return max(limits.checkpoint_s, min(took_s / limits.checkpoint_share, limits.checkpoint_most_s))

    def _under(self, current: ShardMap) -> ShardCheckpoints:
        if self._saves is None or self._revision != current.revision:
            self.close()
            opened = partial(self._stack.open_shard, self._shard_id)
            partitions = current.partitions_of(self._shard_id)
            self._saves = ShardCheckpoints(self._shard_id, opened, self._stack.control.positions, partitions)
            self._revision = current.revision
        return self._saves

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        saves, self._saves = self._saves, None
        if saves is not None:
            saves.close()
