"""Which schemas a stream has met, which of them the others are held against, and which it stopped at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select, update

from cluster.errors import Conflict
from cluster.stores.control_database import ControlDatabase
from cluster.stores.control_tables import stream_schemas
from cluster.streams.schemas import SeenSchema

_COLUMN = stream_schemas.c
_BREACH = 0
"""In place of a schema's number: a way in which plain JSON breaks the pinned one."""


class StreamSchemas:
    """The schemas of the registered streams."""

    def __init__(self, database: ControlDatabase) -> None:
        self._database = database

    def list(self, stream: str) -> Sequence[SeenSchema]:
        """A stream's schemas, in the order in which they were met."""
        with self._database.read() as connection:
            return _list(connection, stream)

    def saw(self, stream: str, seen: SeenSchema) -> bool:
        """Keeps a schema that was met; whether it is the first to say so. Safe to call twice.

        Raises:
            Conflict: another one of its name was pinned meanwhile: judge it by that.
        """
        with self._database.write() as connection:
            known = _list(connection, stream)
            if any(one.key == seen.key for one in known):
                return False
            if seen.state == "pinned" and any(one.state == "pinned" and one.name == seen.name for one in known):
                raise Conflict(f"stream {stream}: another schema was pinned meanwhile", 0.1)
            connection.execute(insert(stream_schemas).values(stream=stream, **asdict(seen)))
            return True

    def met(self, stream: str, key: str, partition: int, offset: int, now: float) -> None:
        """Says where the first record of a schema was. Safe to call twice."""
        mine = (_COLUMN.stream == stream, _COLUMN.key == key, _COLUMN.partition < 0)
        with self._database.write() as connection:
            connection.execute(update(stream_schemas).where(*mine).values(partition=partition, offset=offset, seen=now))

    def pin(self, stream: str, seen: SeenSchema, alone: bool = False) -> None:
        """Makes a schema the one that others of its name are held against. Safe to call twice.

        Args:
            alone: records name no schema: no other stays pinned, whatever its name.
        """
        with self._database.write() as connection:
            _unpin(connection, stream, None if alone else seen.name)
            mine = (_COLUMN.stream == stream, _COLUMN.key == seen.key)
            connection.execute(delete(stream_schemas).where(*mine))
            connection.execute(insert(stream_schemas).values(stream=stream, **asdict(seen) | {"state": "pinned"}))

    def accept(self, stream: str) -> Sequence[SeenSchema]:
        """Pins what the stream stopped at, in place of what was pinned; returns that. Safe to call twice."""
        with self._database.write() as connection:
            refused = [one for one in _list(connection, stream) if one.state == "refused"]
            for one in refused:
                if one.schema_id != _BREACH:
                    _unpin(connection, stream, one.name)
                state = "accepted" if one.schema_id == _BREACH else "pinned"
                mine = (_COLUMN.stream == stream, _COLUMN.key == one.key)
                connection.execute(update(stream_schemas).where(*mine).values(state=state))
            return refused

    def forget_refused(self, stream: str) -> None:
        """Lets what the stream stopped at be judged anew. Safe to call twice."""
        mine = (_COLUMN.stream == stream, _COLUMN.state == "refused")
        with self._database.write() as connection:
            connection.execute(delete(stream_schemas).where(*mine))


def _unpin(connection: Connection, stream: str, name: str | None) -> None:
    """What was pinned is read on; what came after it was held against it, and is let go with it. None: any name."""
    mine = [_COLUMN.stream == stream, _COLUMN.schema_id != _BREACH]
    mine += [] if name is None else [_COLUMN.name == name]
    others = (*mine, _COLUMN.state.in_(("pinned", "seen")))
    connection.execute(update(stream_schemas).where(*others).values(state="former"))


def _list(connection: Connection, stream: str) -> list[SeenSchema]:
    query = select(stream_schemas).where(_COLUMN.stream == stream).order_by(_COLUMN.seen, _COLUMN.key)
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return [SeenSchema(**{key: value for key, value in row.items() if key != "stream"}) for row in rows]
