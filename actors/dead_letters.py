"""Replay of dead letters: through the same stages, at the position that each record got first.

    begin (attempt counted) → stages → append → finish: replayed | waiting | quarantined

A replayed record keeps its place in its source's order, so an old one never overtakes what came after it, and one that
is replayed twice is a duplicate. A letter whose replay died waits still, with its attempt counted: a record that kills
its worker is quarantined in the end. A replay makes no new letters and looks at each letter once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from actors.admission import Admission, Clock, Prepared, dry_admission, open_admission
from actors.retrying import Backoff
from actors.stages import Bad, Origin, Slot
from cluster.config import Settings
from cluster.errors import Rejected
from cluster.model import Event, Record
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter, State
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import EventLog
from cluster.telemetry import metrics

PAGE_LETTERS = 100
_PAGE = 1_000


@dataclass(frozen=True)
class LetterFilter:
    """Which letters; None: any."""

    error_class: str | None = None
    source: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class ReplayedLetter:
    """What became of one letter: `replayed`, `waiting` (still bad) or `quarantined`; in a dry run, what would."""

    id: str
    state: State
    error_class: str = ""
    reason: str = ""


@dataclass
class ReplayResult:
    """What a replay did.

    Args:
        skipped: letters named that are replayed, quarantined or cut already.
        reached: log partition → number of the last entry.
    """

    letters: list[ReplayedLetter] = field(default_factory=list)
    skipped: int = 0
    reached: dict[int, int] = field(default_factory=dict)

    def count(self, state: State) -> int:
        """How many ended so."""
        return sum(letter.state == state for letter in self.letters)


class Replay:
    """Replays dead letters. One thread uses an instance.

    Args:
        clock: seconds since 1970.
        sleep: waits some seconds, for the rate.
        failpoint: called with `begun`, `before append`, `after append`, `finished`.
    """

    def __init__(
        self,
        control: ControlStore,
        log: EventLog,
        settings: Settings,
        clock: Clock = time.time,
        sleep: Callable[[float], None] = time.sleep,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._control, self._log, self._settings, self._clock = control, log, settings, clock
        self._sleep, self._failpoint = sleep, failpoint
        self._backoff = Backoff.of(settings.ingest)
        self._admission = open_admission(control, settings, log.identity.partitions)
        self._attempts = settings.ingest.dead_letter_attempts

    def replay(
        self,
        tenant: str,
        actor: str,
        *,
        ids: Sequence[str] | None = None,
        matching: LetterFilter = LetterFilter(),
        dry_run: bool = False,
        rate_per_s: float = 1_000.0,
        limit: int = 10_000,
    ) -> ReplayResult:
        """Replays letters by id, or those waiting that match, oldest first. Safe to repeat.

        Args:
            dry_run: say what would happen; no attempt is counted, nothing appended.
            rate_per_s: letters a second at most.
            limit: letters in one call.

        Raises:
            NotFound: an id is not the tenant's. Rejected: a bound is not positive. Retryable: a store stayed down.
        """
        if rate_per_s <= 0 or limit < 1:
            raise Rejected("rate and limit of a replay are greater than 0")
        result, wanted = ReplayResult(), self._wanted(tenant, ids, matching)
        if not dry_run:
            detail = {"named": None if ids is None else len(ids), "limit": limit, **vars(matching)}
            self._control.audit.append(tenant, actor, "dead_letters.replay", "", self._clock(), detail)
        wanted = islice(wanted, limit)
        while page := list(islice(wanted, max(1, min(PAGE_LETTERS, int(rate_per_s))))):
            began = time.monotonic()
            (self._try if dry_run else self._replay)(tenant, page, result)
            if (rest := len(page) / rate_per_s - (time.monotonic() - began)) > 0:
                self._sleep(rest)
        return result

    def _wanted(self, tenant: str, ids: Sequence[str] | None, matching: LetterFilter) -> Iterator[str]:
        if ids is not None:
            yield from dict.fromkeys(ids)
            return
        after = 0  # letters come in the order of arrival: this ends, whatever is added or fails meanwhile
        last = self._newest(tenant)
        while page := self._control.dead_letters.list(
            tenant, error_class=matching.error_class, source=matching.source, type=matching.type, state="waiting",
            after=after, limit=_PAGE,
        ):  # fmt: skip
            after = page[-1].sequence
            yield from (letter.id for letter in page if letter.sequence <= last)
            if after >= last:
                return

    def _newest(self, tenant: str) -> int:
        last = 0
        while page := self._control.dead_letters.list(tenant, after=last, limit=_PAGE):
            last = page[-1].sequence
        return last

    def _try(self, tenant: str, ids: Sequence[str], result: ReplayResult) -> None:
        found = [self._control.dead_letters.get(tenant, id) for id in ids]
        letters = [letter for letter in found if letter.state == "waiting" and letter.whole]
        result.skipped += len(found) - len(letters)
        admission = dry_admission(self._settings, self._log.identity.partitions)
        batch = prepared(admission, tenant, letters)
        for letter, slot in zip(letters, batch.records, strict=True):
            failed = isinstance(slot, Bad)
            over = failed and letter.attempts + 1 >= self._attempts
            state: State = "quarantined" if over else "waiting" if failed else "replayed"
            result.letters.append(_told(letter.id, state, slot))

    def _replay(self, tenant: str, ids: Sequence[str], result: ReplayResult) -> None:
        self._backoff.call(self._log.ends)  # a log that is down costs no attempts
        letters = self._control.dead_letters.begin_replay(tenant, ids, self._attempts, self._clock())
        result.skipped += len(ids) - len(letters)
        self._failpoint("begun")
        batch = self._backoff.call(lambda: prepared(self._admission, tenant, letters))
        self._failpoint("before append")
        numbers = self._backoff.call(lambda: self._log.append(batch.entries))
        self._failpoint("after append")
        result.reached |= {entry.partition: number for entry, number in zip(batch.entries, numbers, strict=True)}
        for letter, slot in zip(letters, batch.records, strict=True):
            failure = (slot.error_class, slot.reason) if isinstance(slot, Bad) else None
            state = self._control.dead_letters.finish_replay(tenant, letter.id, self._attempts, failure=failure)
            metrics.DLQ_OUT.labels(state).inc()
            result.letters.append(_told(letter.id, state, slot))
            self._failpoint("finished")


def prepared(admission: Admission, tenant: str, letters: Sequence[DeadLetter]) -> Prepared:
    """The letters' records at the positions that they have had from the beginning, by place in `letters`."""
    events: list[Slot[Event]] = []
    records: list[Slot[Record]] = []
    entries, good = [], 0
    for letter in letters:  # each has an origin and an epoch of its own
        origin = Origin(frozenset({tenant}), frozenset({letter.source}), epoch=letter.epoch)
        events = admission.examine([letter.payload], origin)
        one = admission.place(events, origin, letter.epoch, [letter.position])
        records += one.records
        entries += one.entries
        good += one.good
    return Prepared(entries, records, good)


def _told(id: str, state: State, slot: Slot[Record]) -> ReplayedLetter:
    if isinstance(slot, Bad):
        return ReplayedLetter(id, state, slot.error_class, slot.reason)
    return ReplayedLetter(id, state)
