"""The one tree of errors. Callers branch on the type, never on the text.

    IntelGraphError
    ├── Retryable(retry_after_s)      try the same again later: nothing is known to be wrong with the request
    │   ├── Overloaded                a bound is reached: log full, queue full, rate limit
    │   ├── Unavailable               a store or shard does not answer, or is not ready yet
    │   ├── Conflict                  a compare-and-set lost: read again, then try again
    │   ├── Fenced                    the epoch or lease named is no longer current: reload the map first
    │   │   ├── EpochMismatch         the shard serves another epoch
    │   │   └── Misrouted             the shard does not own a bucket of the call
    │   └── OutcomeUnknown            the call may have taken effect: apply it again, versions make that harmless
    ├── Rejected(reason)              the request is wrong: the same again gets the same answer
    │   ├── BadRecord(error_class)    one record is wrong: a dead letter, or named in an HTTP answer
    │   ├── NotFound                  there is no such thing, or it is not the caller's
    │   ├── LostPosition              a position that is waited for names what the log has lost
    │   ├── KeyReused                 an Idempotency-Key came again with another body
    │   ├── TooLarge                  the request is over a named limit
    │   ├── TooCostly                 a store gave a question up: it took more than it was given
    │   ├── Unauthenticated           no valid token
    │   └── Forbidden                 a valid token that may not do this
    └── Corrupt                       stored data contradicts itself: stop, keep everything, tell an operator

Errors of client libraries are translated once, in the store that uses the library. Programmer errors crash.
Every message says what the user can do.
"""

from __future__ import annotations


class IntelGraphError(Exception):
    """Base of every operating error; `str()` is fit to show to a user and holds no secret."""


class Retryable(IntelGraphError):
    """The same call may succeed later.

    Args:
        message: what happened and what to do.
        retry_after_s: when to try again, seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (str(self), self.retry_after_s)


class Overloaded(Retryable):
    """A named bound is reached (HTTP 429)."""


class Unavailable(Retryable):
    """A part does not answer or is not ready (HTTP 503)."""


class Conflict(Retryable):
    """A compare-and-set found another value than it expected (HTTP 409)."""


class Fenced(Retryable):
    """The epoch, lease or map revision that was named is not the current one; nothing was written."""


class EpochMismatch(Fenced):
    """The shard serves another epoch than the caller named."""


class Misrouted(Fenced):
    """The shard does not own a bucket that the call is about."""


class OutcomeUnknown(Retryable):
    """The connection broke after the request was sent: it may have taken effect. Apply again."""


class Rejected(IntelGraphError):
    """The request is wrong and will be wrong again (HTTP 400 unless a subclass says otherwise)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRecord(Rejected):
    """One record breaks the format, the schema or a constraint.

    Args:
        error_class: one of `ERROR_CLASSES`, what dead letters are sorted by.
        reason: which field, what is wrong with it and what would be right.
    """

    def __init__(self, error_class: str, reason: str) -> None:
        super().__init__(reason)
        self.error_class = error_class

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.error_class, self.reason)


ERROR_CLASSES = ("decode", "schema", "policy", "constraint", "too_large")


class NotFound(Rejected):
    """No such thing for this caller (HTTP 404): the same answer whether it is absent or another tenant's."""


class LostPosition(Rejected):
    """A position that is waited for names an entry that the log has lost (HTTP 410)."""


class KeyReused(Rejected):
    """An Idempotency-Key came again with another body (HTTP 422)."""


class TooLarge(Rejected):
    """The request is over a named limit of size (HTTP 413)."""


ASK_FOR_LESS = "ask for less: name the types that matter, fewer hops, one case instead of all, or a smaller page"


class TooCostly(Rejected):
    """A store gave a question up after the time or memory that it was given (HTTP 422): ask for less.

    Not retryable, although the same may succeed when a shard is less busy: what makes a question slow is mostly what it
    asks for, so trying again by ourselves would cost the shard, and everybody who asks it, the same seconds once more.
    """


class Unauthenticated(Rejected):
    """No valid token (HTTP 401)."""


class Forbidden(Rejected):
    """The token is valid and lacks the scope or source (HTTP 403)."""


class Corrupt(IntelGraphError):
    """Stored data contradicts itself: a hash, a gap, a missing file. Never repaired silently."""
