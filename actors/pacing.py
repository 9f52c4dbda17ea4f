"""Fair shares of busy hosts: tenants with much to read do not make others wait.

What a stream brings costs CPU at every stage behind its reader: log, writers, databases. Where a host's CPU is at work
nearly all the time, and streams of some tenants read far more than those of others, they get a cap, which falls until
there is CPU left, and rises again as there is. Their records wait in their topic meanwhile, not before those of others.

    each look:  busy, others read little         → a lower cap, but never below its floors
                there is CPU left                → cap × 1.15
                for some looks it binds nobody, nobody else is there, or others read as much → no cap
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

_FIRST, _DOWN, _UP, _ROOM = 0.5, 0.8, 1.15, 0.1
_LITTLE, _AS_MUCH = 0.5, 0.9
"""Others read little that read less than the one share of what the first read, until they read the other."""
_LEAST = 0.25
"""Of what they read before they had a cap: they get so much, however busy a host is with something else."""
_KEPT, _TRICKLE_PER_S, _QUIET_LOOKS = 0.5, 1.0, 5
"""Rates are means of looks, each weighing half of the one after it; who reads less than a record a second counts for
nothing; so many looks in which no other one read or had records that wait, or its own waited no more, end a cap."""


@dataclass(frozen=True, slots=True)
class Pace:
    """After a look. Of tenants that share a stream, all are one.

    Args:
        at: seconds of a clock that never goes back.
        read: records read by then, by tenants.
        rates: records read a second, by tenants.
        slowed: those with a cap; empty: none.
        cap: records a second for these.
        least: below which their cap does not fall.
        quiet: looks in a row in which nobody else read or had anything to read, or others read as much, or less waited
            than is read in a second.
    """

    at: float = 0.0
    read: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    slowed: str = ""
    cap: float = inf
    least: float = 0.0
    quiet: int = 0


def paced(before: Pace, at: float, read: Mapping[str, int], unread: Mapping[str, int], busy: float) -> Pace:
    """The cap after one more look.

    Args:
        at, read: as in `Pace`.
        unread: records that wait, by tenants.
        busy: share of the CPU at work that may be, where it is most; over 1 it is too much.
    """
    past_s = at - before.at
    if past_s <= 0:
        return before
    new = {owner: max(0, count - before.read.get(owner, count)) / past_s for owner, count in read.items()}
    rates = {owner: _KEPT * before.rates.get(owner, 0.0) + (1 - _KEPT) * rate for owner, rate in new.items()}
    now = replace(before, at=at, read=read, rates={o: rate for o, rate in rates.items() if rate >= _TRICKLE_PER_S})
    first = max(now.rates, key=now.rates.__getitem__, default="")
    others = max((rate for owner, rate in now.rates.items() if owner != first), default=0.0)
    alone = not 0.0 < others < (_AS_MUCH if now.slowed else _LITTLE) * now.rates.get(first, 0.0)
    binds = bool(first) and now.slowed == first and unread.get(first, 0) > now.rates[first]
    beside = any(rate >= _TRICKLE_PER_S or unread.get(owner, 0) for owner, rate in new.items() if owner != first)
    now = replace(now, quiet=0 if binds and beside and not alone else now.quiet + 1)
    if now.slowed and (now.slowed != first or now.quiet >= _QUIET_LOOKS):
        return _free(now)
    if alone or not (now.slowed or beside):
        return now
    if busy > 1:
        return _lower(now, first, max(new[first], now.rates[first]), others / _LITTLE)
    if not now.slowed or busy >= 1 - _ROOM:
        return now
    return replace(now, cap=_UP * now.cap)


def _lower(now: Pace, owner: str, rate: float, floor: float) -> Pace:
    if now.slowed:
        return replace(now, cap=max(floor, now.least, _DOWN * min(now.cap, rate)))
    least, now = _LEAST * rate, replace(now, quiet=0)
    return replace(now, slowed=owner, least=least, cap=max(floor, least, _FIRST * rate))


def _free(now: Pace) -> Pace:
    return replace(now, slowed="", cap=inf, least=0.0)
