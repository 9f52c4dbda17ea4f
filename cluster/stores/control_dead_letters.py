"""Dead letters: bad records, kept whole until somebody replays them.

    add ─► waiting ─ begin_replay (attempts + 1) ─► finish_replay ─► replayed
              ▲                                          │ still bad
              └──────────────────────────────────────────┴─► quarantined, at the limit of attempts

An attempt counts when it begins, so a record that kills its worker is quarantined too. A letter is known by (tenant,
source, partition, epoch, position): reading the source again after a crash, or a replay that fails again, finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from cluster.errors import ERROR_CLASSES, NotFound, Rejected
from cluster.stores import control_tallies as tallies
from cluster.stores.control_database import ControlDatabase, insert_new
from cluster.stores.control_tables import dead_letters
from cluster.versions import decode, encode

State = Literal["waiting", "replayed", "quarantined"]
_FACETS = ("error_class", "source", "type", "state", "attempts")
_PAGE_MAX = 1_000


@dataclass(frozen=True, slots=True)
class NewDeadLetter:
    """A bad record as the ingest worker hands it over.

    Args:
        epoch, position: of the record, its own or the one it was given; with `partition` they name it.
        partition: of the source, if it has several.
        type: of the record, where it could be read.
        payload: the record's bytes as they came.
        headers: what came with it: file and line, topic and offset, content type.
        payload_bytes: of the whole, where `payload` is its beginning only; else 0.
    """

    source: str
    epoch: int
    position: Sequence[int]
    error_class: str
    reason: str
    payload: bytes
    partition: str = ""
    type: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    payload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is kept.

    Args:
        id: derived from what names the record.
        sequence: order of arrival; what pages go by.
        payload: whole, unless `payload_bytes`, which is of the whole, is greater than its length: then its beginning,
            and such a letter can be shown and not replayed.
        payload_sha256: of the whole; empty where its source gave the beginning only.
        attempts: replays that were begun.
        first_seen, last_attempt: seconds since 1970.
    """

    sequence: int
    id: str
    tenant: str
    source: str
    partition: str
    epoch: int
    position: tuple[int, ...]
    type: str
    error_class: str
    reason: str
    payload: bytes
    payload_bytes: int
    payload_sha256: str
    headers: dict[str, Any]
    attempts: int
    state: State
    first_seen: float
    last_attempt: float | None

    @property
    def whole(self) -> bool:
        """Whether the payload is all there, so that it can be replayed."""
        return self.payload_bytes == len(self.payload)


class LetterPlace(NamedTuple):
    """Where a dead letter stands in its source, without what it holds: `version` is the version's text."""

    tenant: str
    source: str
    version: str


class LetterCounts(NamedTuple):
    """Counts that never fall.

    Args:
        came: letters by the error class that they came with.
        left: ends of attempts by outcome: with `replayed` and `quarantined` a letter ends, with `waiting` it does not.
    """

    came: Mapping[str, int]
    left: Mapping[str, int]


class DeadLetters:
    """The dead letters of all tenants."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def add(self, tenant: str, letters: Iterable[NewDeadLetter], now: float, payload_limit_bytes: int = 1 << 20) -> int:
        """Keeps bad records durably; returns how many are new. Safe to call twice: what is there stays.

        Args:
            payload_limit_bytes: of a longer payload the beginning is kept, with size and SHA-256 of the whole.

        Raises:
            Rejected: an error class is none of `ERROR_CLASSES`: anything else is no dead letter.
        """
        rows = [_row(tenant, letter, now, payload_limit_bytes) for letter in letters]
        with self._database.write() as connection:
            new = Counter(row["error_class"] for row in rows if insert_new(connection, dead_letters, [row]))
            for error_class, count in new.items():
                tallies.add(connection, tallies.LETTERS_IN, error_class, count)
        return new.total()

    def get(self, tenant: str, id: str) -> DeadLetter:
        """One letter. Raises NotFound, also for another tenant's."""
        with self._database.read() as connection:
            return _get(connection, tenant, id)

    def list(
        self, tenant: str, *, error_class: str | None = None, source: str | None = None, type: str | None = None,
        state: State | None = None, attempts: int | None = None, after: int = 0, limit: int = 100,
    ) -> list[DeadLetter]:  # fmt: skip
        """Letters that fit all filters, oldest first.

        Args:
            after: sequence of the last letter of the page before.
            limit: 1 to 1,000.
        """
        if not 1 <= limit <= _PAGE_MAX:
            raise Rejected(f"limit: 1 to {_PAGE_MAX}, not {limit}")
        filters = {"error_class": error_class, "source": source, "type": type, "state": state, "attempts": attempts}
        query = select(dead_letters).where(*_fits(tenant, filters), dead_letters.c.sequence > after)
        with self._database.read() as connection:
            return [_letter(row) for row in connection.execute(query.order_by(dead_letters.c.sequence).limit(limit))]

    def facets(self, tenant: str) -> dict[str, dict[str, int]]:
        """How many letters there are by error class, source, type, state and attempts."""
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for name in _FACETS:
                column = dead_letters.c[name]
                query = select(column, func.count()).where(dead_letters.c.tenant == tenant).group_by(column)
                found[name] = {str(row[0]): row[1] for row in connection.execute(query)}
        return found

    def counted(self) -> LetterCounts:
        """What came and what became of it, of all tenants, since the installation began. Each letter came once, however
        often its source was read, and whichever process replays it."""
        with self._database.read() as connection:
            return LetterCounts(tallies.of(connection, tallies.LETTERS_IN), tallies.of(connection, tallies.LETTERS_OUT))

    def places(self, tenant: str) -> Sequence[LetterPlace]:
        """Where all letters of a tenant stand, whatever became of them."""
        column = dead_letters.c
        query = select(column.tenant, column.source, column.version).where(column.tenant == tenant)
        with self._database.read() as connection:
            return [LetterPlace(*row) for row in connection.execute(query)]

    def begin_replay(self, tenant: str, ids: Iterable[str], attempts_limit: int, now: float) -> Sequence[DeadLetter]:
        """Counts an attempt for each letter that waits and returns these, to be ingested again with their positions.

        Letters at the limit become quarantined instead; replayed, quarantined and cut ones are left out. After a crash
        the letters wait still: begin again.

        Raises:
            NotFound: an id is not the tenant's; nothing was counted.
        """
        begun: list[DeadLetter] = []
        with self._database.write() as connection:
            for letter in [_get(connection, tenant, id) for id in ids]:
                if letter.state != "waiting" or not letter.whole:
                    continue
                if letter.attempts >= attempts_limit:
                    _set(connection, tenant, letter.id, state="quarantined")
                    tallies.add(connection, tallies.LETTERS_OUT, "quarantined", 1)
                    continue
                _set(connection, tenant, letter.id, attempts=letter.attempts + 1, last_attempt=now)
                begun.append(_get(connection, tenant, letter.id))
        return begun

    def finish_replay(
        self, tenant: str, id: str, attempts_limit: int, *, failure: tuple[str, str] | None = None
    ) -> State:
        """Notes how an attempt ended and returns the letter's state. Safe to call twice.

        Args:
            failure: (error class, reason) if the record is still bad; None if it is durable in the log.

        Raises:
            NotFound: there is no such letter.
        """
        with self._database.write() as connection:
            letter = _get(connection, tenant, id)
            if letter.state == "replayed":
                return "replayed"
            state: State = "quarantined" if letter.attempts >= attempts_limit else letter.state
            if failure is None:
                state = "replayed"
                _set(connection, tenant, id, state=state)
            else:
                _check_class(failure[0])
                _set(connection, tenant, id, state=state, error_class=failure[0], reason=failure[1])
            if letter.state == "waiting" or state == "replayed":  # one that is quarantined has left already
                tallies.add(connection, tallies.LETTERS_OUT, state, 1)
            return state


def _row(tenant: str, letter: NewDeadLetter, now: float, limit_bytes: int) -> dict[str, Any]:
    _check_class(letter.error_class)
    version = encode(letter.epoch, letter.position)
    whole_bytes = max(letter.payload_bytes, len(letter.payload))
    digest = hashlib.sha256(letter.payload).hexdigest() if whole_bytes == len(letter.payload) else ""
    name = json.dumps([tenant, letter.source, letter.partition, version]).encode()
    return {
        "id": hashlib.blake2b(name, digest_size=12).hexdigest(), "tenant": tenant, "source": letter.source,
        "partition": letter.partition, "version": version, "type": letter.type, "error_class": letter.error_class,
        "reason": letter.reason, "payload": letter.payload[:limit_bytes], "payload_bytes": whole_bytes,
        "payload_sha256": digest, "state": "waiting", "first_seen": now,
        "headers": json.dumps(dict(letter.headers), sort_keys=True),
    }  # fmt: skip


def _check_class(error_class: str) -> None:
    if error_class not in ERROR_CLASSES:
        raise Rejected(f"error class {error_class!r}: a dead letter is one of {', '.join(ERROR_CLASSES)}")


def _fits(tenant: str, filters: Mapping[str, object]) -> list[Any]:
    wanted = [dead_letters.c[name] == value for name, value in filters.items() if value is not None]
    return [dead_letters.c.tenant == tenant, *wanted]


def _set(connection: Connection, tenant: str, id: str, **values: Any) -> None:
    connection.execute(
        update(dead_letters).where(dead_letters.c.tenant == tenant, dead_letters.c.id == id).values(**values)
    )


def _get(connection: Connection, tenant: str, id: str) -> DeadLetter:
    query = select(dead_letters).where(dead_letters.c.tenant == tenant, dead_letters.c.id == id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no dead letter {id!r}; see `intelgraph dlq list`")
    return _letter(row)


def _letter(row: Row[Any]) -> DeadLetter:
    values = dict(row._mapping)
    epoch, position = decode(values.pop("version"))
    headers = json.loads(values.pop("headers"))
    return DeadLetter(**values, epoch=epoch, position=position, headers=headers)
