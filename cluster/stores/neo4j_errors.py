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
    Corrupt,
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
_BREAKS_ITS_SCHEMA = (
    "Neo.DatabaseError.Schema.ConstraintCreationFailed",
    "Neo.DatabaseError.Schema.IndexCreationFailed",
)
_IS_THERE = (
    "Neo.ClientError.Schema.EquivalentSchemaRuleAlreadyExists",
    "Neo.ClientError.Schema.ConstraintAlreadyExists",
)
_TOO_MANY_LOGINS = "Neo.ClientError.Security.AuthenticationRateLimit"


class IsThere(QueryFailed):
    """Another has made the same index or constraint meanwhile; `IF NOT EXISTS` looks before it waits for the lock."""


def _told(error: Exception) -> str:
    """The error's text in one line."""
    text = error.message if isinstance(error, Neo4jError) else str(error)
    return " ".join(text.split())[:500]


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
        return Rejected(f"the shard does not let our user do this: {_told(error)}")
    if isinstance(error, ConfigurationError):
        return Rejected(f"the shard cannot be used with these settings: {_told(error)}")
    if isinstance(error, DriverError | OSError):
        if wrote:
            return OutcomeUnknown(f"the shard's connection broke during a write: {_told(error)}", 0.5)
        return Unavailable(f"the shard does not answer: {_told(error)}", 1.0)
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
        return Unavailable(f"the shard is not available: {_told(error)}", 2.0)
    if error.code in _IS_THERE:
        return IsThere(f"the shard has it already: {_told(error)}")
    if error.code in _BREAKS_ITS_SCHEMA:
        return Corrupt(f"what the shard holds breaks a constraint; rebuild the shard: {_told(error)}")
    if error.code == _NO_SUCH_DATABASE:
        return Rejected(f"{_told(error)} Name one that the server has")
    if isinstance(error, TransientError):
        return Overloaded(f"the shard is overloaded: {_told(error)}", 1.0)
    if isinstance(error, DatabaseError):
        kind = OutcomeUnknown if wrote else Unavailable
        return kind(f"the shard failed: {_told(error)}", 2.0)
    return QueryFailed(f"the shard refused a query: {_told(error)}")
