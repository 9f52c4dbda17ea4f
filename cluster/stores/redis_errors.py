"""Translates the errors of the Redis client, once, for every store that speaks to a Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.exceptions import AuthenticationError, AuthorizationError

from cluster.errors import Corrupt, IntelGraphError, OutcomeUnknown, Overloaded, Unavailable


def translate(error: redis.RedisError, what: str, sent: bool = False) -> IntelGraphError:
    """The error of our tree for one of the client's.

    Args:
        what: the server, for the message: "the event log".
        sent: the request changes something and may have reached the server before the connection broke.
    """
    match error:
        case AuthenticationError() | AuthorizationError():
            return Unavailable(f"{what} is just starting, or refuses the password; try again shortly", 5.0)
        case redis.BusyLoadingError():
            return Unavailable(f"{what} is still loading its data; try again shortly")
        case redis.ConnectionError() | redis.TimeoutError():
            reason = f"{what} does not answer ({type(error).__name__}: {error})"
            if sent:
                return OutcomeUnknown(f"{reason}; the request may have taken effect: send the same again")
            return Unavailable(f"{reason}; see that its server runs")
        case redis.OutOfMemoryError():
            return Overloaded(f"{what} has no memory left; wait until it is trimmed or raise its limit", 5.0)
        case redis.ReadOnlyError():
            return Unavailable(f"{what} is a read-only replica; connect to its primary", 5.0)
        case redis.ResponseError():
            text = str(error)
            return _refused(text.partition("because of: ")[2] or text, what)  # as EXEC tells why it did nothing
    return Unavailable(f"{what}: {type(error).__name__}: {error}")


def _refused(text: str, what: str) -> IntelGraphError:
    # The client has no class of its own for these; the first word is the protocol's error code, not prose.
    match text.partition(" ")[0]:
        case "MISCONF":
            return Unavailable(f"{what} cannot write to its disk: free space, then try again", 5.0)
        case "OOM":
            return Overloaded(f"{what} has no memory left; wait until it is trimmed or raise its limit", 5.0)
        case "READONLY" | "MASTERDOWN" | "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN":
            return Unavailable(f"{what} is not ready ({text})", 2.0)
        case "NOREPLICAS":
            return Unavailable(f"{what} has too few replicas to take writes", 5.0)
        case "WRONGTYPE":
            return Corrupt(f"{what}: a key is of another type ({text}); is the server used by others?")
    return Unavailable(f"{what} refused the request: {text}")


@contextmanager
def translated(what: str, sent: bool = False) -> Iterator[None]:
    """Raises the translation of whatever the client raises inside."""
    try:
        yield
    except redis.RedisError as error:
        raise translate(error, what, sent) from error


def command(client: redis.Redis | redis.client.Pipeline, *words: Any) -> Any:
    """Sends a command as it is, or queues it on a pipeline: the client's own method has no types."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]
