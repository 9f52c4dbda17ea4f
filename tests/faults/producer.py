"""What fault runs send, who sends it, and what the sender then knows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster import batch
from cluster.errors import OutcomeUnknown, Retryable
from cluster.model import Kind, Op, Record
from cluster.stores.log import Append
from tests.faults.harness import DEADLINE_S, Installation
from tests.faults.operations import Ended, Operation, Operations, without_time
from tests.strategies import make


def events(seed: int, count: int, tenants: int = 3, start: int = 1, text_chars: int = 0) -> list[Record]:
    """Uniquely numbered events (the position is the number, and a property says it) over several tenants.

    Entities of two sources, relationships whose ends change, claims, deletes; few enough things that they collide.
    """
    rnd = random.Random(seed)
    return [event(rnd, number, tenants, max(20, count // 8), text_chars) for number in range(start, start + count)]


def event(rnd: random.Random, number: int, tenants: int, things: int, text_chars: int = 0) -> Record:
    """One of them: its number, of how many things it may speak in a case, and how long a text it has beside."""
    tenant, case = f"tenant-{rnd.randrange(tenants)}", f"case-{rnd.randrange(4)}"
    op = Op.DELETE if rnd.random() < 0.1 else Op.UPSERT
    source = rnd.choice(("crm", "crm", "feed"))
    text = f',"text":"{rnd.randbytes(text_chars // 2).hex()}"' if text_chars else ""
    props = f'{{"n":{number},"name":"{tenant} thing {number}"{text}}}'
    kind = rnd.random()
    ident = str(rnd.randrange(things))
    ends = ("person", str(rnd.randrange(things)), "person", str(rnd.randrange(things)))
    if kind < 0.6:
        return make(tenant, case, Kind.ENTITY, "person", ident, source, number, op, props=props)
    if kind < 0.95:
        return make(
            tenant, case, Kind.RELATIONSHIP, rnd.choice(("KNOWS", "OWNS")), ident, "crm", number, op, ends, props
        )
    claim = f'["age",{number},null]'
    return make(tenant, case, Kind.CLAIM, "statement", ident, source, number, op, (*ends[:2], "", ""), props, claim)


@dataclass
class History:
    """What a producer knows: every event invoked, acknowledged (ok) or of unknown outcome (info), and in which calls.

    A test may add to the sets by itself: then `operations` has a call for that, too.
    """

    invoked: set[Record] = field(default_factory=set)
    ok: set[Record] = field(default_factory=set)
    info: set[Record] = field(default_factory=set)
    calls: Operations[Record] = field(default_factory=Operations)

    def invoke(self, rows: Sequence[Record], process: str = "producer") -> Operation[Record]:
        """A call begins."""
        self.invoked.update(rows)
        return self.calls.invoke(process, rows)

    def complete(self, call: Operation[Record], ended: Ended) -> None:
        """It ended."""
        self.calls.complete(call, ended)
        if ended is Ended.OK:
            self.ok.update(call.elements)
        elif ended is Ended.INFO:
            self.info.update(call.elements)

    @property
    def operations(self) -> list[Operation[Record]]:
        """All calls."""
        known = {ended: {r for one in self.calls.made if one.ended is ended for r in one.elements} for ended in Ended}
        by_hand = {Ended.OK: self.ok, Ended.INFO: self.info | (self.invoked - self.ok - known[Ended.FAIL])}
        added = [(ended, sorted(rows - known[ended] - known[Ended.OK])) for ended, rows in by_hand.items()]
        return self.calls.made + [without_time("the test", rows, ended) for ended, rows in added if rows]


class Producer:
    """Appends events to the log in batches, again after every error that may pass, until each is acknowledged.

    Args:
        rate_per_s: events a second, at most; None: as fast as it goes.
    """

    def __init__(
        self, system: Installation, records: Sequence[Record], batch_records: int = 50, rate_per_s: float | None = None
    ) -> None:
        self._system, self._records, self._batch_records = system, records, batch_records
        self._batch_s = batch_records / rate_per_s if rate_per_s else 0.0
        self.history = History()
        self.invoked_at = time.time()
        """When the batch that is not acknowledged yet was sent first."""
        self.sent = self.refused = 0
        self._free = len(records)
        self.stopping = self.begun = False
        system.producers.append(self)
        self._thread = threading.Thread(target=self.send, name="producer", daemon=True)

    @property
    def total(self) -> int:
        """How many events there are to send."""
        return len(self._records)

    def start(self) -> Producer:
        """Send in the background."""
        self._thread.start()
        return self

    def free(self, share: float) -> None:
        """Send no more than a share of the events until more are free: so something is left to send in every fault,
        however slow the machine is."""
        self._free = round(share * len(self._records))

    def join(self, deadline_s: float = DEADLINE_S) -> History:
        """Wait until all is sent."""
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), f"sent only {self.sent} of {len(self._records)}"
        return self.history

    def send(self) -> History:
        """Send everything; blocks."""
        self.begun = True
        while self.sent < len(self._records) and not self.stopping:
            rows = self._records[self.sent : min(self.sent + self._batch_records, self._free)]
            if not rows:
                time.sleep(0.01)
                continue
            self.invoked_at = time.time()
            if not self._sent(rows):
                break
            self.sent += len(rows)
            time.sleep(max(0.0, self.invoked_at + self._batch_s - time.time()))
        return self.history

    def _sent(self, rows: Sequence[Record]) -> bool:
        """Sends a batch until it is acknowledged; false where the producer is stopped before."""
        while not self.stopping:
            call = self.history.invoke(rows)
            try:
                self._system.log.append(entries_of(rows, self._system.partitions))
            except Retryable as error:
                self.refused += 1
                self.history.complete(call, Ended.INFO if isinstance(error, OutcomeUnknown) else Ended.FAIL)
                time.sleep(0.05)
                continue
            self.history.complete(call, Ended.OK)
            return True
        return False


def entries_of(records: Iterable[Record], partitions: int) -> list[Append]:
    """Log entries of records, one a partition."""
    by_partition: dict[int, list[Record]] = {}
    for record in records:
        by_partition.setdefault(record.bucket % partitions, []).append(record)
    return [Append(p, batch.encode(rows), len(rows)) for p, rows in sorted(by_partition.items())]
