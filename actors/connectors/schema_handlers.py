"""Handlers: a team's own functions, each of which makes events of records by some versions of the team's own schema.

A handler is a pure function with a declared subject and range of versions: the same record gives the same event for
ever, so that a replay finds duplicates. None is built in. Installed ones are found by their entry points:

    [project.entry-points."intelgraph.schema_handlers"]
    person = "acme.facts:person"          # an instance, not a class
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from cluster.errors import Rejected

GROUP = "intelgraph.schema_handlers"


class Handler(Protocol):
    """Makes an event of a record."""

    @property
    def subject(self) -> str:
        """Of the schema, in the registry."""

    @property
    def first_version(self) -> int:
        """The first version of the subject that it reads."""

    @property
    def last_version(self) -> int | None:
        """The last one; None: every later one that fits what is pinned."""

    def __call__(self, record: Any) -> Mapping[str, Any]:
        """An event's fields, of a record as JSON values. Blocks on nothing, knows no clock.

        Raises:
            BadRecord: the record says nothing that an event could. Anything else is a bug, and stops the stream.
        """


class Handlers:
    """Handlers by subject; of one subject no two read the same version."""

    def __init__(self) -> None:
        self._by_subject: dict[str, list[Handler]] = {}

    def register(self, handler: Handler) -> None:
        """Adds one. Raises Rejected where another reads one of its versions."""
        mine = self._by_subject.setdefault(handler.subject, [])
        if any(_overlap(handler, other) for other in mine):
            raise Rejected(f"two handlers read versions of {handler.subject} from {handler.first_version} on")
        mine.append(handler)

    def of(self, subject: str, version: int) -> Handler | None:
        """What reads a version; None where nothing does, and the record itself has to be an event.

        Raises:
            Rejected: other versions of the subject have handlers, and this one has none.
        """
        mine = self._by_subject.get(subject, [])
        for handler in mine:
            if _reads(handler, version):
                return handler
        if mine:
            raise Rejected(f"no handler reads version {version} of {subject}: install one")
        return None


def _reads(handler: Handler, version: int) -> bool:
    return handler.first_version <= version and (handler.last_version is None or version <= handler.last_version)


def _overlap(one: Handler, other: Handler) -> bool:
    return _reads(one, other.first_version) or _reads(other, one.first_version)


@cache
def installed() -> Handlers:
    """The handlers of this environment, found once a process. Raises Rejected where two read the same version."""
    found = Handlers()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found.register(point.load())
    return found
