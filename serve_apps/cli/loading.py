"""Loading a file from the command line: what was read, and what the shards made of it.

Shards keep exact counts by (tenant, source, epoch). A load's outcomes are what these counts grew by, from the moment
at which everything before the load was applied to the moment at which the load's last entry was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import Retryable, Unavailable
from serve_apps.cli.conservation import outcomes_of

if TYPE_CHECKING:
    from actors.ingest_actor import Loaded, LoadRequest
    from actors.loads import LoadProgress
    from cluster.stores.control import ControlStore
    from cluster.stores.graph import Outcomes
    from serve_apps.cli.log_counts import Epoch
    from serve_apps.cli.session import Session

_LOOK_S, _LOADS = 0.2, 100_000
NOT_YET = "the shards are still behind: `intelgraph lag` shows how far, `intelgraph ingest list` the counts"


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of one file. applied + duplicate + stale + missing = acked, dead records apart.

    Args:
        again: records that the log holds twice since a worker died between appending and noting it.
        missing: acknowledged, durable, and not yet applied when the wait ended.
    """

    load: str
    label: str
    tenant: str
    source: str
    epoch: int
    acked: int
    applied: int
    duplicate: int
    stale: int
    dead: int
    again: int
    missing: int
    read_s: float
    wait_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the rate."""
        return {**asdict(self), "records_per_s": round(self.acked / max(self.read_s + self.wait_s, 1e-9))}


Counts = Mapping["Epoch", "Outcomes"]
Report = Callable[["LoadProgress | None", int], None]
"""(how far reading is, or None once it is done; log entries that shards have not applied)."""


def load_file(
    session: Session, request: LoadRequest, wait_s: float, report: Report = lambda progress, lag: None
) -> Summary:
    """Have an ingest worker load a file, or go on with a load of it, and wait until the shards have applied it.

    Within `cluster.joined`.

    Args:
        wait_s: longest wait for the shards; 0: none, then outcomes are what was seen until then.

    Raises:
        Rejected: the file will not do. Retryable: a store stayed down; the same again goes on.
    """
    from actors.ingest_actor import load_file as have_loaded

    if wait_s:
        wait_applied(session, session.log.ends(), wait_s)
    before, begun = outcomes_of(session.shards.values()), told_before(session.control, request.tenant)
    began, lag, waits = time.monotonic(), _Lag(session), _Waits(session)

    def told(progress: LoadProgress) -> None:
        waits.tell(progress.waiting)
        report(progress, lag.entries())

    result = have_loaded(request, told)
    read = time.monotonic()
    left = wait_applied(session, result.reached, wait_s, lambda left: report(None, left))
    after = outcomes_of(session.shards.values())
    done = time.monotonic()
    return _summary(session, request, result, begun, (before, after), left > 0, (read - began, done - read))


def told_before(control: ControlStore, tenant: str) -> dict[str, tuple[int, int]]:
    """(acked, dead) of each load that was cut off and would be gone on with, by its id."""
    found = control.loads.list(tenant, _LOADS)
    return {load.id: (load.acked, load.dead) for load in found if load.state == "running"}


def _summary(
    session: Session, request: LoadRequest, done: Loaded, begun: Mapping[str, tuple[int, int]],
    counts: tuple[Counts, Counts], is_behind: bool, seconds: tuple[float, float],
) -> Summary:  # fmt: skip
    tenant, loads = request.tenant, session.control.loads
    row, (acked_before, dead_before) = loads.get(tenant, done.load), begun.get(done.load, (0, 0))
    acked, dead = row.acked - acked_before, row.dead - dead_before  # of every worker that read, also of those that died
    applied, duplicate, stale = grown(*counts, tenant, done.source, done.epoch, acked)
    counted = applied + duplicate + stale
    loads.record_outcomes(
        tenant, done.load, applied=row.applied + applied, duplicate=row.duplicate + duplicate, stale=row.stale + stale
    )
    missing = max(0, acked - counted) if is_behind else 0
    return Summary(
        done.load, request.path, tenant, done.source, done.epoch, acked, applied, duplicate, stale, dead,
        max(0, counted - acked), missing, round(seconds[0], 3), round(seconds[1], 3),
    )  # fmt: skip


def grown(before: Counts, after: Counts, tenant: str, source: str, epoch: int, acked: int) -> tuple[int, int, int]:
    """(applied, duplicate, stale) that were added between two counts of a load's epoch.

    Where records bring epochs of their own, the load's says too little: then all epochs of the source count.
    """
    own = _grown(before, after, lambda key: key == (tenant, source, epoch))
    return own if sum(own) >= acked else _grown(before, after, lambda key: key[:2] == (tenant, source))


def _grown(before: Counts, after: Counts, wanted: Callable[[Epoch], bool]) -> tuple[int, int, int]:
    added = [0, 0, 0]
    for key, now in after.items():
        if wanted(key):
            old = before.get(key)
            for at, name in enumerate(("applied", "duplicate", "stale")):
                added[at] += getattr(now, name) - (getattr(old, name) if old else 0)
    return added[0], added[1], added[2]


def wait_applied(
    session: Session, numbers: Mapping[int, int], wait_s: float, tell: Callable[[int], None] = lambda left: None
) -> int:
    """Wait until every shard has applied these log entries (partition → number); returns how many are left.

    A shard that does not answer for a moment is asked again.
    """
    end = time.monotonic() + wait_s
    while True:
        left = behind(session, numbers)
        tell(left)
        if not left or time.monotonic() >= end:
            return left
        time.sleep(_LOOK_S)


def behind(session: Session, numbers: Mapping[int, int]) -> int:
    """Log entries up to `numbers` that shards have not applied; at least 1 while a shard does not answer."""
    current = session.stack.current_map()
    left = 0
    for shard_id, shard in session.shards.items():
        try:
            cursors = shard.cursors()
        except Unavailable:
            left += 1
            continue
        for partition in current.partitions_of(shard_id):
            at = cursors[partition].at if partition in cursors else 0
            left += max(0, numbers.get(partition, 0) - at)
    return left


class _Waits:
    """Says once of each time that a load stands still what it waits for."""

    def __init__(self, session: Session) -> None:
        self._session, self._waiting = session, False

    def tell(self, reason: str) -> None:
        """Call it with each progress: empty where the load goes on."""
        if reason and not self._waiting:
            said = "waiting, and going on by itself; after Ctrl-C the same command goes on from there"
            self._session.output.note(f"{said}: {reason}", style="yellow")
        self._waiting = bool(reason)


class _Lag:
    """The lag of all shards, looked at now and then."""

    def __init__(self, session: Session, every_s: float = 0.5) -> None:
        self._session, self._every_s, self._due, self._last = session, every_s, 0.0, 0

    def entries(self) -> int:
        """Log entries not yet applied, at most `every_s` old."""
        if time.monotonic() >= self._due:
            with suppress(Retryable):  # the log is away: the worker waits for it, and says so
                self._last = behind(self._session, self._session.log.ends())
            self._due = time.monotonic() + self._every_s
        return self._last
