"""Who looks on while a fault run goes on, and what was seen must have been right, then and in the end.

    with Observer(system, records) as observer:      # begins before the load
        …
    check(system, history, observed=[observer])

It follows the log as a consumer of its own, and asks for some entities as the API does: versions that readers of a
current epoch are shown may only become newer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from cluster import batch, versions
from cluster.config import QuerySettings
from cluster.errors import IntelGraphError, NotFound
from cluster.fold import Thing, thing_of
from cluster.ids import bucket_of
from cluster.model import Kind, Record
from cluster.query.fanout import FanOut
from cluster.query.hot import read_entity
from cluster.query.ir import EntityQuery
from cluster.stores.log import EventLog
from serve_apps.services import ControlDirectory
from tests.faults.append_checker import Anomaly, ListRead, VersionRead, check_lists, check_versions
from tests.faults.harness import DEADLINE_S, Installation
from tests.faults.operations import Operation

_LOOK_S, _ASK_S, _ANSWER_S = 0.1, 0.05, 2.0
_THINGS = 12
Register = tuple[Thing, str]
"""What a source says of a thing."""


def register_of(record: Record) -> Register:
    """Where a record goes."""
    return thing_of(record), record.source


class Observer:
    """See the module. Both threads have connections of their own."""

    def __init__(self, system: Installation, records: Iterable[Record]) -> None:
        self._system = system
        entities = Counter(thing_of(r) for r in records if r.kind == Kind.ENTITY)
        self._things = [thing for thing, _ in entities.most_common(_THINGS)]
        self._stopping = threading.Event()
        looking, asking = self._look, lambda: asyncio.run(self._ask())
        self._threads = [threading.Thread(target=what, name="observer", daemon=True) for what in (looking, asking)]
        self._at: dict[int, int] = {}
        self._lists: dict[Register, list[str]] = defaultdict(list)
        self.lists: list[ListRead[Register, str]] = []
        self.versions: list[VersionRead[Register]] = []

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def anomalies(self, operations: Sequence[Operation[Record]], logged: Iterable[Record]) -> list[Anomaly]:
        """What was seen and must not be.

        Args:
            logged: everything that the log and the lake have by now, in the order of each partition.
        """
        appended = [
            Operation(o.process, [(register_of(r), r.stamp) for r in o.elements], o.invoked, o.completed, o.ended)
            for o in operations
        ]
        final = lists_of(logged)
        newest = {register: max(stamps) for register, stamps in final.items()}
        versioned = [
            Operation(o.process, [(k, _version(s)) for k, s in o.elements], o.invoked, o.completed, o.ended)
            for o in appended
        ]
        seen = check_versions(versioned, self.versions, {k: _version(stamp) for k, stamp in newest.items()})
        return check_lists(appended, self.lists, final) + seen

    # --- the log

    def _look(self) -> None:
        log: EventLog | None = None
        while not self._stopping.wait(_LOOK_S):
            try:
                log = log or self._system.stack.open_log()
                self._follow(log)
            except IntelGraphError:
                if log is not None:
                    log.close()
                log = None
        if log is not None:
            log.close()

    def _follow(self, log: EventLog) -> None:
        """Reads on. A partition whose next entry was trimmed is left: what was seen of it is a beginning."""
        begins = log.begins()
        for partition, end in log.ends().items():
            after = self._at.get(partition, 0)
            if after < end and begins[partition] <= after + 1:
                grown = set[Register]()
                for entry in log.read(partition, after, 64, 8 << 20):
                    for record in batch.decode(entry.data):
                        grown |= added(self._lists, record)
                    self._at[partition] = entry.number
                self.lists += [ListRead(key, tuple(self._lists[key]), "log") for key in grown]

    # --- the shards

    async def _ask(self) -> None:
        stack = self._system.stack
        settings = QuerySettings(deadline_s=_ANSWER_S)
        fanout = FanOut(ControlDirectory(stack), lambda shard: stack.open_client(shard, _ANSWER_S), settings)
        try:
            while not self._stopping.is_set():
                for thing in self._things:
                    with suppress(IntelGraphError):
                        await self._one(fanout, thing)
                    await asyncio.sleep(_ASK_S)
                    if self._stopping.is_set():
                        return
        finally:
            fanout.close()

    async def _one(self, fanout: FanOut, thing: Thing) -> None:
        tenant, case, _, type_, id_ = thing
        query = EntityQuery(tenant, case, type_, id_)
        with suppress(NotFound):  # deleted, or not there yet
            view = await fanout.one(bucket_of(tenant, case), lambda found: read_entity(found, query), fanout.deadline())
            for source in view.sources:
                version = versions.encode(source.epoch, source.position)
                self.versions.append(VersionRead((thing, source.source), version, "readers"))


def added(lists: dict[Register, list[str]], record: Record) -> set[Register]:
    """Puts a record at the end of its register's list, where it is not in it: the registers that grew. An append whose
    answer never came is made again, so the first place counts."""
    if record.kind >= Kind.FLOOR or record.stamp in lists[key := register_of(record)]:
        return set()
    lists[key].append(record.stamp)
    return {key}


def lists_of(records: Iterable[Record]) -> Mapping[Register, list[str]]:
    """Each register's stamps in the order of their first places."""
    lists: dict[Register, list[str]] = defaultdict(list)
    for record in records:
        added(lists, record)
    return lists


def _version(stamp: str) -> str:
    return stamp.partition(".")[0]
