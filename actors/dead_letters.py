"""Replay of dead letters: through the same stages, at the position that each record got first.

    begin (attempt counted) → stages → append → finish: replayed | waiting | quarantined

A replayed record keeps its place in its source's order, so an old one never overtakes what came after it, and one that
is replayed twice is a duplicate. A letter whose replay died waits still, with its attempt counted: a record that kills
its worker is quarantined in the end. A replay makes no new letters and looks at each letter once. A letter that holds a
row (`actors.letter_rows`) is replayed with all the records that the row makes, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import NamedTuple

from actors.admission import Admission, Clock, dry_admission, open_admission
from actors.connectors import ColumnMapping
from actors.letter_rows import TIMELINE, LetterRows
from actors.retrying import Backoff
from actors.stages import Bad, Origin
from actors.stages.bad import bad_of
from cluster.config import Settings
from cluster.errors import BadRecord, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter, State
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import Append, EventLog

PAGE_LETTERS = 100
_PAGE = 1_000


@dataclass(frozen=True)
class LetterFilter:
    """Which letters; None: any."""

    error_class: str | None = None
    source: str | None = None
    type: str | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class ReplayedLetter:
    """What became of one letter: `replayed`, `waiting` (still bad, or not tried) or `quarantined`; in a dry run, what
    would. One that cannot be tried (cut, of a killed source, a mapping that does not fit) costs no attempt.
    """

    id: str
    state: State
    error_class: str = ""
    reason: str = ""


@dataclass
class ReplayResult:
    """What a replay did.

    Args:
        skipped: letters named that are replayed or quarantined already.
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
        mapping: ColumnMapping | None = None,
        dry_run: bool = False,
        rate_per_s: float = 1_000.0,
        limit: int = 10_000,
    ) -> ReplayResult:
        """Replays letters by id, or those waiting that match, oldest first. Safe to repeat.

        Args:
            mapping: how rows become events, in place of their loads' mappings; letters that hold events are not tried.
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
            columns = None if mapping is None else mapping.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            detail = {"named": None if ids is None else len(ids), "limit": limit, "mapping": columns, **vars(matching)}
            self._control.audit.append(tenant, actor, "dead_letters.replay", "", self._clock(), detail)
        wanted = islice(wanted, limit)
        with closing(LetterRows(self._control, tenant, mapping, self._settings.streams.registry)) as rows:
            while page := list(islice(wanted, max(1, min(PAGE_LETTERS, int(rate_per_s))))):
                began = time.monotonic()
                (self._try if dry_run else self._replay)(tenant, page, rows, result)
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
            tenant, **asdict(matching), state="waiting", after=after, limit=_PAGE,
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

    def _page(self, tenant: str, ids: Sequence[str], rows: LetterRows, result: ReplayResult) -> list[DeadLetter]:
        """The letters of a page that can be tried; the others are told of or counted."""
        letters: list[DeadLetter] = []
        for letter in [self._control.dead_letters.get(tenant, id) for id in ids]:
            if letter.state != "waiting":
                result.skipped += 1
            elif reason := rows.refusal(letter):
                result.letters.append(ReplayedLetter(letter.id, "waiting", letter.error_class, reason))
            else:
                letters.append(letter)
        return letters

    def _try(self, tenant: str, ids: Sequence[str], rows: LetterRows, result: ReplayResult) -> None:
        letters = self._page(tenant, ids, rows, result)
        admission = dry_admission(self._settings, self._log.identity.partitions)
        for letter, failure in zip(letters, prepared(admission, tenant, letters, rows).failures, strict=True):
            over = failure is not None and letter.attempts + 1 >= self._attempts
            result.letters.append(_told(letter.id, "quarantined" if over else "waiting", failure))

    def _replay(self, tenant: str, ids: Sequence[str], rows: LetterRows, result: ReplayResult) -> None:
        self._backoff.call(self._log.ends)  # a log that is down costs no attempts
        tried = [letter.id for letter in self._page(tenant, ids, rows, result)]
        letters = self._control.dead_letters.begin_replay(tenant, tried, self._attempts, self._clock())
        self._left_out(tenant, set(tried) - {letter.id for letter in letters}, result)
        self._failpoint("begun")
        batch = self._backoff.call(lambda: prepared(self._admission, tenant, letters, rows))
        self._failpoint("before append")
        numbers = self._backoff.call(lambda: self._log.append(batch.entries))
        self._failpoint("after append")
        for entry, number in zip(batch.entries, numbers, strict=True):
            result.reached[entry.partition] = number
        for letter, bad in zip(letters, batch.failures, strict=True):
            failure = None if bad is None else (bad.error_class, bad.reason)
            state = self._control.dead_letters.finish_replay(tenant, letter.id, self._attempts, failure=failure)
            result.letters.append(_told(letter.id, state, bad))
            self._failpoint("finished")

    def _left_out(self, tenant: str, ids: set[str], result: ReplayResult) -> None:
        """Letters whose last attempt died are in quarantine now; others were replayed by somebody else meanwhile."""
        for letter in [self._control.dead_letters.get(tenant, id) for id in sorted(ids)]:
            if letter.state == "quarantined":
                result.letters.append(ReplayedLetter(letter.id, letter.state, letter.error_class, letter.reason))
            else:
                result.skipped += 1


class PreparedLetters(NamedTuple):
    """Letters ready for the log.

    Args:
        entries: all records of each letter that has no failure, and nothing of the others.
        failures: by place; None where there is none.
    """

    entries: list[Append]
    failures: list[Bad | None]


def prepared(admission: Admission, tenant: str, letters: Sequence[DeadLetter], rows: LetterRows) -> PreparedLetters:
    """The letters' records at the positions that they have had from the beginning."""
    done = PreparedLetters([], [])
    for letter in letters:  # each has an origin and an epoch of its own
        timeline = int(letter.headers.get(TIMELINE, letter.epoch))
        try:
            origin = Origin(rows.tenants(letter), frozenset({letter.source}), epoch=timeline)
            found = rows.records(letter)
        except BadRecord as error:
            done.failures.append(bad_of(error))
            continue
        events = admission.examine([record.payload for record in found], origin)
        batch = admission.place(events, origin, letter.epoch, [record.position for record in found])
        bad = [failure for _, failure in batch.bad()]
        done.failures.append(bad[0] if bad else None)
        done.entries.extend(() if bad else batch.entries)
    return done


def _told(id: str, state: State, bad: Bad | None) -> ReplayedLetter:
    if bad is None:
        return ReplayedLetter(id, "replayed")
    return ReplayedLetter(id, state, bad.error_class, bad.reason)
