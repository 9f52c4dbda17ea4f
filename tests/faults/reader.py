"""Who reads while a fault run goes on."""

from __future__ import annotations

import threading

from cluster.errors import IntelGraphError
from cluster.stores.falkor_shard import FalkorShard
from tests.faults.harness import DEADLINE_S, Installation


class Reader:
    """Reads a shard as queries do, all the time: what it is let in to see must be complete up to the log's ends of
    the moment in which the shard's server started (I: nothing stale is served as fresh)."""

    def __init__(self, system: Installation, shard: str) -> None:
        self._system, self._shard = system, shard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader-{shard}", daemon=True)
        self.floor: dict[int, int] = {}
        self.stale: list[tuple[dict[int, int], dict[int, int]]] = []
        self.served = self.refused = 0

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)

    def expect(self, floor: dict[int, int]) -> None:
        """From now on nothing below these positions may be served."""
        self.floor = dict(floor)

    def _run(self) -> None:
        shard: FalkorShard | None = None
        while not self._stopping.is_set():
            try:
                shard = shard or self._system.stack.open_shard(self._shard)
                self._look(shard)
            except IntelGraphError:
                if shard is not None:
                    shard.close()
            self._stopping.wait(0.005)
        if shard is not None:
            shard.close()

    def _look(self, shard: FalkorShard) -> None:
        floor = dict(self.floor)
        epoch = self._system.stack.control.shards.get(self._shard).epoch
        rows = shard.read(
            "MATCH (m:_Shard {_k: 'shard'}) WHERE m.epoch = $epoch AND (m.until IS NULL OR m.until > timestamp()) "
            "MATCH (c:_Cursor) RETURN c._k, c.at",
            {"epoch": epoch},
        )
        if not rows:
            self.refused += 1
            return
        at = {int(p): n for p, n in rows}
        self.served += 1
        if any(at.get(p, 0) < n for p, n in floor.items()):
            self.stale.append((at, floor))
