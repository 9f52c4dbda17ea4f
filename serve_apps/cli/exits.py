"""Exit codes, and which error ends a command with which."""

from __future__ import annotations

from enum import IntEnum

from cluster.errors import IntelGraphError, NotFound, Rejected, Retryable


class Exit(IntEnum):
    """What the command's exit status says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    RETRY = 3
    BAD_RECORDS = 4
    INTERRUPTED = 130


class Misused(Rejected):
    """The command was written wrongly: an argument is missing, or two exclude each other."""


class NotUp(Retryable):
    """The command needs the running system, and it is not up."""


def exit_of(error: IntelGraphError) -> Exit:
    """The exit status of an error."""
    if isinstance(error, Misused):
        return Exit.USAGE
    return Exit.RETRY if isinstance(error, Retryable) else Exit.FAILED


def error_name(error: IntelGraphError) -> str:
    """What machines branch on in `{"error": {"kind": …}}`."""
    if isinstance(error, NotFound):
        return "not_found"
    names = {Exit.USAGE: "usage", Exit.RETRY: "retry", Exit.FAILED: "failed"}
    return "not_up" if isinstance(error, NotUp) else names[exit_of(error)]
