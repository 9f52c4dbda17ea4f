"""Idempotency-Keys of pushes: one answer for each key, whoever asks and however often.

    claim ─► yours                    do the work, then `keep` the answer, or `release` the key where it failed
          ─► another is at work       come again in a moment: it answers, or its time runs out and the key is yours
          ─► answered                 give that answer

The first answer that is kept is the answer of all: one who was thought dead and comes back gets it too. So a claim only
spares work that would be done twice, and when it ends may be judged by clocks; what is appended twice is a duplicate.

So an answer may be forgotten, too: the same push again gets the same positions (control_acceptance.py), and what it
appends is a duplicate. Both the number of a tenant's keys and the length of an answer are bounded, or whoever may push
could fill the disk of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, tuple_, update

from cluster.errors import Rejected
from cluster.stores.control_acceptance import IdempotencyMismatch, kept_seconds
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_tables import pushes

_KEY_CHARS = 256
_FORGET_ROWS = 1_000
"""Keys that are too old, of any tenant, that one claim clears away."""
_CLOCKS_APART_S = 60.0
"""A claim seems to last longer than it may to one whose clock is behind, or who read it before waiting for the
database: up to so much. More says that the claim was made by a clock that was wrong."""


class PushClaim(NamedTuple):
    """What became of a claim.

    Args:
        answer: what the push was answered; None: nothing yet.
        wait_s: so long at most another is at work; 0 without an answer: the key is the caller's.
    """

    answer: dict[str, Any] | None = None
    wait_s: float = 0.0


class PushKeys:
    """The keys of all tenants.

    Args:
        hours: an Idempotency-Key is remembered at least so long.
    """

    def __init__(self, database: ControlDatabase, hours: float) -> None:
        self._database, self._kept_s = database, kept_seconds(hours)

    def claim(
        self, tenant: str, key: str, body_hash: str, holder: str, seconds: float, now: float, most: int
    ) -> PushClaim:
        """Asks for a key. Safe to call again with the same holder, which begins its time anew.

        Args:
            holder: a name that nobody else has.
            seconds: how long the holder is taken to be at work. A claim made by a clock that was far ahead is over.
            now: seconds since 1970.
            most: keys of a tenant that are kept; over that the oldest that nobody works for are forgotten.

        Raises:
            IdempotencyMismatch: the key was used with another body.
        """
        if not 1 <= len(key) <= _KEY_CHARS:
            raise Rejected(f"Idempotency-Key: 1 to {_KEY_CHARS} characters")
        oldest = now - self._kept_s
        with self._database.read() as connection:  # those who wait leave the database to those who write
            row = _get(connection, tenant, key)
        if row is not None and row.created >= oldest:
            found = _seen(row, body_hash, holder, seconds, now)
            if found != PushClaim():
                return found
        with self._database.write(later=True) as connection:
            old = select(pushes.c.tenant, pushes.c.key).where(pushes.c.created < oldest).limit(_FORGET_ROWS)
            connection.execute(delete(pushes).where(*_is(tenant, key), pushes.c.created < oldest))
            connection.execute(delete(pushes).where(tuple_(pushes.c.tenant, pushes.c.key).in_(old)))
            row = _get(connection, tenant, key)
            found = _seen(row, body_hash, holder, seconds, now)
            if found == PushClaim():
                _hold(connection, row, tenant, key, body_hash, holder, now + seconds, now)
            if row is None:
                _forget_over(connection, tenant, most, now)
            return found

    def keep(self, tenant: str, key: str, answer: dict[str, Any], most_bytes: int) -> dict[str, Any]:
        """Keeps what a push was answered if nothing is kept yet, and returns what is kept. Safe to call twice.

        Args:
            most_bytes: a longer answer is not kept: who comes with the key works for it again.
        """
        text = json.dumps(answer, separators=(",", ":"), sort_keys=True)  # ASCII
        with self._database.write(later=True) as connection:
            row = _get(connection, tenant, key)
            if row is not None and row.answer is None:
                kept = {"answer": text} if len(text) <= most_bytes else {"held_until": 0.0}
                connection.execute(update(pushes).where(*_is(tenant, key)).values(**kept))
            return answer if row is None or row.answer is None else dict(json.loads(row.answer))

    def release(self, tenant: str, key: str, holder: str) -> None:
        """Gives a key back, if it is the holder's still: the next one who asks has it at once. Safe to call twice."""
        with self._database.write(later=True) as connection:
            mine = (*_is(tenant, key), pushes.c.holder == holder)
            connection.execute(update(pushes).where(*mine).values(held_until=0.0))

    def forget_beyond(self, kept: Mapping[int, int]) -> int:
        """Forgets answers that promise log entries which are lost: who comes with such a key works for it again.

        Safe to call twice. Reads every answer.

        Args:
            kept: log partition → last entry that is not lost.

        Returns:
            how many were forgotten.
        """
        answered = select(pushes.c.tenant, pushes.c.key, pushes.c.answer).where(pushes.c.answer.is_not(None))
        with self._database.write(later=True) as connection:
            lost = [
                (tenant, key)
                for tenant, key, answer in connection.execute(answered)
                if any(number > kept.get(int(p), number) for p, number in json.loads(answer)["positions"].items())
            ]
            for tenant, key in lost:
                connection.execute(update(pushes).where(*_is(tenant, key)).values(answer=None, held_until=0.0))
        return len(lost)


def _seen(row: Row[Any] | None, body_hash: str, holder: str, seconds: float, now: float) -> PushClaim:
    """The claim as the row stands: empty where the caller may have the key, or has it."""
    if row is None:
        return PushClaim()
    if row.body_hash != body_hash:
        raise IdempotencyMismatch("the Idempotency-Key was used with another body; use a new key")
    if row.answer is not None:
        return PushClaim(json.loads(row.answer))
    left_s = row.held_until - now
    return PushClaim(None, left_s) if row.holder != holder and 0 < left_s <= seconds + _CLOCKS_APART_S else PushClaim()


def _hold(
    connection: Connection, row: Row[Any] | None, tenant: str, key: str, body_hash: str, holder: str, until: float,
    now: float,
) -> None:  # fmt: skip
    if row is None:
        first = {"tenant": tenant, "key": key, "body_hash": body_hash, "created": now}
        connection.execute(insert(pushes).values(**first, holder=holder, held_until=until))
    else:
        connection.execute(update(pushes).where(*_is(tenant, key)).values(holder=holder, held_until=until))


def _forget_over(connection: Connection, tenant: str, most: int, now: float) -> None:
    """Forgets a tenth of the keys that a tenant may have, oldest first, once it has more: not at each claim again."""
    mine = pushes.c.tenant == tenant
    if connection.execute(select(func.count()).select_from(pushes).where(mine)).scalar_one() <= most:
        return
    idle = or_(pushes.c.answer.is_not(None), pushes.c.held_until <= now)
    oldest = select(pushes.c.key).where(mine, idle).order_by(pushes.c.created, pushes.c.key).limit(most // 10 + 1)
    connection.execute(delete(pushes).where(mine, pushes.c.key.in_(oldest)))


def _get(connection: Connection, tenant: str, key: str) -> Row[Any] | None:
    return connection.execute(select(pushes).where(*_is(tenant, key))).one_or_none()


def _is(tenant: str, key: str) -> tuple[Any, ...]:
    return pushes.c.tenant == tenant, pushes.c.key == key
