"""Errors of the Neo4j driver, translated once: by class and by the server's code, never by text."""

from __future__ import annotations

from neo4j.exceptions import (
    AuthError,
    ConfigurationError,
    DatabaseError,
    DriverError,
    Forbidden,
    Neo4jError,
    TransientError,
)

from cluster.errors import (
    ASK_FOR_LESS,
    IntelGraphError,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    TooCostly,
    Unavailable,
)
from cluster.stores.graph import QueryFailed

DEADLOCK = "Neo.TransientError.Transaction.DeadlockDetected"
_TIMED_OUT = (
    "Neo.ClientError.Transaction.TransactionTimedOut",
    "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
)
_OUT_OF_MEMORY = (
    "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
    "Neo.TransientError.General.TransactionOutOfMemoryError",
    "Neo.TransientError.General.OutOfMemoryError",
)
_TAKES_NO_WRITES = (
    "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
    "Neo.ClientError.Cluster.NotALeader",
    "Neo.TransientError.General.DatabaseUnavailable",
)
_NO_SUCH_DATABASE = "Neo.ClientError.Database.DatabaseNotFound"
_TOO_MANY_LOGINS = "Neo.ClientError.Security.AuthenticationRateLimit"


def may_succeed(error: Neo4jError) -> bool:
    """Whether the server has rolled the transaction back and the same may succeed right away."""
    return error.is_retryable() and error.code not in (*_OUT_OF_MEMORY, *_TAKES_NO_WRITES)


def translate(error: Exception, wrote: bool, given_s: float | None = None) -> IntelGraphError:
    """Our error for one of the driver's.

    Args:
        wrote: a write was sent: where the connection broke after that, it may have taken effect.
        given_s: how long the query might take, if its caller has said so: then it was too much for that time. Over the
            client's own bound, nothing is known of the query; it may be the load.
    """
    if isinstance(error, AuthError) or (isinstance(error, Neo4jError) and error.code == _TOO_MANY_LOGINS):
        return Unavailable("the shard does not let our user in; check the user and the password of Neo4j shards", 5.0)
    if isinstance(error, Forbidden):
        return Rejected(f"the shard does not let our user do this: {error.message}")
    if isinstance(error, ConfigurationError):
        return Rejected(f"the shard cannot be used with these settings: {error}")
    if isinstance(error, DriverError | OSError):
        if wrote:
            return OutcomeUnknown(f"the shard's connection broke during a write: {error}", 0.5)
        return Unavailable(f"the shard does not answer: {error}", 1.0)
    if isinstance(error, Neo4jError):
        return _refused(error, wrote, given_s)
    raise error


def _refused(error: Neo4jError, wrote: bool, given_s: float | None) -> IntelGraphError:
    if error.code in _TIMED_OUT:
        if given_s is not None:
            return TooCostly(f"the shard gave the question up after {given_s:.1f} s; {ASK_FOR_LESS}")
        return Overloaded("the shard is overloaded: it gave a query up", 1.0)
    if error.code in _OUT_OF_MEMORY:
        if wrote:
            return Overloaded("the shard is overloaded: it has no memory left for this write", 1.0)
        return TooCostly(f"the question took more of the shard's memory than one may; {ASK_FOR_LESS}")
    if error.code in _TAKES_NO_WRITES:
        return Unavailable(f"the shard is not available: {error.message}", 2.0)
    if error.code == _NO_SUCH_DATABASE:
        return Rejected(f"{error.message} Name one that the server has")
    if isinstance(error, TransientError):
        return Overloaded(f"the shard is overloaded: {error.message}", 1.0)
    if isinstance(error, DatabaseError):
        kind = OutcomeUnknown if wrote else Unavailable
        return kind(f"the shard failed: {error.message[:500]}", 2.0)
    return QueryFailed(f"the shard refused a query: {error.message[:500]}")
