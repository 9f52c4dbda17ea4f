"""Where a read or a write goes, as pure functions and values; clocks and randomness are passed in.

    route_write(map, bucket, states) ─► the owner, or a refusal that says when to try again; never another shard
    route_read(map, bucket, states)  ─► candidates in order: the owner, then replicas that are fresh enough
    Breaker ─► whether a shard may be called now      delays() ─► when to try again      merge() ─► who is missing

Times are seconds of any one clock that does not go backwards (`time.monotonic`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from cluster.errors import IntelGraphError, Unavailable
from cluster.shard_map import ShardMap

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardState:
    """What the router knows of a shard.

    Args:
        of: the primary that it copies; None for a primary.
        state: as registered; a draining shard still owns and serves its buckets.
        epoch: that reads and writes have to name.
        lag_s: how far behind it is, seconds; None if that is not known, which is never fresh enough for a replica.
    """

    id: str
    of: str | None
    state: Literal["active", "draining", "down"]
    epoch: int
    lag_s: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes, and what it has to name there."""

    shard: str
    epoch: int
    revision: int


def route_write(
    shard_map: ShardMap, bucket: int, states: Mapping[str, ShardState], retry_after_s: float = 1.0
) -> Route:
    """The owner of a bucket.

    Raises:
        Unavailable: the owner is down or not known; the write waits for it and goes nowhere else.
    """
    owner = shard_map.owners[bucket]
    state = states.get(owner)
    if state is None or state.state == "down":
        raise Unavailable(
            f"shard {owner}, which owns bucket {bucket}, is down; the write has to wait for it", retry_after_s
        )
    return Route(owner, state.epoch, shard_map.revision)


def route_read(
    shard_map: ShardMap, bucket: int, states: Mapping[str, ShardState], max_lag_s: float, retry_after_s: float = 1.0
) -> tuple[Route, ...]:
    """Who may answer for a bucket, in the order to try: the owner, then its replicas, the freshest first.

    Args:
        max_lag_s: a replica further behind is left out.

    Raises:
        Unavailable: nobody may.
    """
    owner = shard_map.owners[bucket]
    replicas = [s for s in states.values() if s.of == owner and s.state != "down" and _fresh(s, max_lag_s)]
    ordered = sorted(replicas, key=lambda state: (state.lag_s, state.id))
    primary = states.get(owner)
    if primary is not None and primary.state != "down":
        ordered.insert(0, primary)
    if not ordered:
        raise Unavailable(f"shard {owner} is down and has no replica within {max_lag_s:g} s; try again", retry_after_s)
    return tuple(Route(state.id, state.epoch, shard_map.revision) for state in ordered)


def _fresh(state: ShardState, max_lag_s: float) -> bool:
    return state.lag_s is not None and state.lag_s <= max_lag_s


@dataclass(frozen=True, slots=True)
class Breaker:
    """A shard's circuit breaker: closed → open after `failures_limit` failures in a row → half open after `open_s`.

    Half open, one trial call is let through: if it succeeds the breaker closes, if it fails it opens again. A trial
    that never reports is replaced by another after `open_s`.

    Args:
        failures: in a row, so far.
        opened_s: when it opened, or when the trial began; None while closed.
        trial: a trial call is under way.
    """

    failures_limit: int
    open_s: float
    failures: int = 0
    opened_s: float | None = None
    trial: bool = False

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made; whoever makes it applies `called` first."""
        return self.opened_s is None or now_s - self.opened_s >= self.open_s

    def called(self, now_s: float) -> Breaker:
        """After a call was let through."""
        return self if self.opened_s is None else replace(self, opened_s=now_s, trial=True)

    def succeeded(self) -> Breaker:
        """After a call succeeded; one that began before the breaker opened closes it too."""
        return replace(self, failures=0, opened_s=None, trial=False)

    def failed(self, now_s: float) -> Breaker:
        """After a call failed for a reason that is the shard's."""
        failures = self.failures + 1
        if self.trial or (self.opened_s is None and failures >= self.failures_limit):
            return replace(self, failures=failures, opened_s=now_s, trial=False)
        return replace(self, failures=failures)

    def retry_after_s(self, now_s: float) -> float:
        """How long until a call may be made; 0 if one may now."""
        return 0.0 if self.opened_s is None else max(0.0, self.opened_s + self.open_s - now_s)


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer is due, and how much time its parts may take."""

    at_s: float

    def left_s(self, now_s: float) -> float:
        """Time left, never negative."""
        return max(0.0, self.at_s - now_s)

    def timeout_s(self, now_s: float, most_s: float, reserve_s: float = 0.0) -> float:
        """Timeout of one call: what is left after a reserve for merging, at most `most_s`; 0 means do not call."""
        return max(0.0, min(most_s, self.left_s(now_s) - reserve_s))


def delays(random_source: random.Random, attempts: int, base_s: float = 0.05, cap_s: float = 2.0) -> Iterator[float]:
    """Waits between attempts, attempts - 1 of them: each uniform from 0 to a bound that doubles up to `cap_s`.

    "Full jitter", as in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    for attempt in range(attempts - 1):
        yield random_source.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 60)))


def next_delay(wait_s: float, retry_after_s: float, deadline: Deadline, now_s: float) -> float | None:
    """How long to wait before the next attempt; None if the deadline comes first.

    Args:
        wait_s: from `delays`.
        retry_after_s: what the refusal said; waited for at least.
    """
    delay_s = max(wait_s, retry_after_s)
    return delay_s if delay_s < deadline.left_s(now_s) else None


def group_by_owner(shard_map: ShardMap, buckets: Iterable[int]) -> dict[str, tuple[int, ...]]:
    """The fan-out of a question about several buckets: who owns which, shards and buckets ascending."""
    groups: dict[str, list[int]] = {}
    for bucket in sorted(set(buckets)):
        groups.setdefault(shard_map.owners[bucket], []).append(bucket)
    return {shard: tuple(groups[shard]) for shard in sorted(groups)}


@dataclass(frozen=True, slots=True)
class Merged(Generic[T]):
    """What a fan-out brought.

    Args:
        answers: of the shards that answered in time, by shard id.
        missing: shards whose buckets the answer lacks, with the reason; the caller shows them to the user.
    """

    answers: tuple[T, ...]
    missing: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every shard answered."""
        return not self.missing

    def lacking(self, shards: Iterable[str]) -> Merged[T]:
        """The same, where these shards were not asked at all."""
        return Merged(self.answers, {**self.missing, **dict.fromkeys(shards, "new; not asked before the deadline")})


def merge(asked: Sequence[str], outcomes: Mapping[str, T | IntelGraphError]) -> Merged[T]:
    """Puts the outcomes of a fan-out together, in the order of shard ids whatever the order of arrival.

    Args:
        asked: the shards of the plan.
        outcomes: an answer or the error, by shard; a shard that is absent had not answered by the deadline.
    """
    answers: list[T] = []
    missing: dict[str, str] = {}
    for shard in sorted(asked):
        outcome = outcomes.get(shard)
        if outcome is None:
            missing[shard] = "no answer before the deadline"
        elif isinstance(outcome, IntelGraphError):
            missing[shard] = str(outcome)
        else:
            answers.append(outcome)
    return Merged(tuple(answers), missing)
