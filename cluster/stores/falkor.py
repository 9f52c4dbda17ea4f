"""FalkorDB over its Redis protocol: fixed query templates in, rows out, errors translated.

One `FalkorClient` is for one thread. Reads take `read()`; a writer uses `send()` and `receive()` so that the next
batch's text is built while the store works on this one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import redis
from pydantic import SecretStr
from redis.connection import Connection, UnixDomainSocketConnection

from cluster.databases import FALKORDB
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
from cluster.stores.falkor_text import header
from cluster.stores.graph import QueryFailed
from cluster.telemetry import metrics

GRAPH = "intelgraph"
_READ_SECONDS = metrics.STORE_QUERY_SECONDS.labels("falkordb", "read")
_WRITE_SECONDS = metrics.STORE_QUERY_SECONDS.labels("falkordb", "write")
_NULL, _STRING, _INTEGER, _BOOLEAN, _DOUBLE, _ARRAY, _MAP = 1, 2, 3, 4, 5, 6, 10


def _value(kind: int, value: Any) -> Any:
    if kind == _STRING:
        return value.decode()
    if kind == _INTEGER:
        return value
    if kind == _DOUBLE:
        return float(value)
    if kind == _BOOLEAN:
        return value in (b"true", True)
    if kind == _NULL:
        return None
    if kind == _ARRAY:
        return _values(value)
    if kind == _MAP:
        entries = iter(value)
        return {
            name.decode(): cell.decode() if kind == _STRING else cell if kind == _INTEGER else _value(kind, cell)
            for name, (kind, cell) in zip(entries, entries, strict=True)
        }
    raise Corrupt(f"the shard answered with a value of type {kind}, which no template asks for")


def _values(cells: Any) -> list[Any]:
    """Most cells are texts and integers: they are decoded here, without a call for each."""
    return [
        value.decode() if kind == _STRING else value if kind == _INTEGER else _value(kind, value)
        for kind, value in cells
    ]


def _rows(answer: Any) -> list[list[Any]]:
    return [] if len(answer) < 3 else list(map(_values, answer[1]))


def translate(error: Exception, wrote: bool, given_s: float | None = None) -> IntelGraphError:
    """Our error for one of redis-py's.

    Args:
        given_s: how long the query might take, if its caller has said so: then it was too much for that time. Over the
            store's own bound, nothing is known of the query; it may be the load.
    """
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return Unavailable("the shard is loading its checkpoint; try again shortly", 0.5)
    if isinstance(error, redis.exceptions.AuthenticationError):
        # a shard that starts lets its user in only once its epoch is raised
        return Unavailable("the shard lets nobody in yet; if this lasts, check this installation's secrets file", 1.0)
    if isinstance(error, redis.exceptions.NoPermissionError):
        return Rejected(f"the shard does not let our user do this: {error}")
    if isinstance(error, redis.exceptions.TimeoutError | redis.exceptions.ConnectionError | OSError):
        if wrote:
            return OutcomeUnknown(f"the shard's connection broke during a write: {error}", 0.5)
        return Unavailable(f"the shard does not answer: {error}", 1.0)
    text = str(error)
    if "timed out" in text and given_s is not None:
        return TooCostly(f"the shard gave the question up after {given_s:.1f} s; {ASK_FOR_LESS}")
    if "mem consumption exceeded" in text and not wrote:
        return TooCostly(f"the question took more of the shard's memory than one may; {ASK_FOR_LESS}")
    if "timed out" in text or "pending queries" in text:
        return Overloaded(f"the shard is overloaded: {text}", 1.0)
    if text.startswith(("OOM", "MISCONF", "READONLY")) or "memory capacity" in text:
        return Unavailable(f"the shard takes no writes: {text}", 2.0)
    return QueryFailed(f"the shard refused a query: {text[:500]}")


def _answer(connection: Any) -> Any:
    """One answer as it came: none of an empty graph, and a refusal as it is, so that those after it are read."""
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return () if "empty key" in str(error) else error


class FalkorClient:
    """A connection to one shard, and one beside it for readings that need nothing of each other.

    Args:
        uri: `unix:///path/to/socket` or `falkor://host:port`.
        password: of the application user, or None.
        username: ACL user, or None for the default user.
        timeout_s: longest wait for one answer.
        graph: name of the graph on that server.
    """

    dialect = FALKORDB

    def __init__(
        self,
        uri: str,
        password: SecretStr | None,
        username: str | None = None,
        timeout_s: float = 30.0,
        graph: str = GRAPH,
    ) -> None:
        self._graph = graph
        parts = urlsplit(uri)
        secret = password.get_secret_value() if password else None
        shared: dict[str, Any] = {"username": username, "password": secret, "socket_timeout": timeout_s, "protocol": 2}
        connect: Any  # redis-py is not typed
        if parts.scheme == "unix":
            connect = partial(UnixDomainSocketConnection, path=parts.path, **shared)  # type: ignore[abstract]
        elif parts.scheme in ("falkor", "redis") and parts.hostname:
            shared["socket_connect_timeout"] = min(timeout_s, 5.0)
            connect = partial(Connection, host=parts.hostname, port=parts.port or 6379, **shared)
        else:
            raise Rejected(f"shard address {uri!r}: use unix:///path or falkor://host:port")
        self._connection: Any = connect()  # they are opened when they are first used
        self._beside: Any = connect()
        self._open = 0
        self._waited_s = 0.0
        """For the answer that is received next."""

    def send(self, texts: Sequence[str], read_only: bool = False) -> None:
        """Send queries without waiting; `receive` has to be called once for each, in order."""
        command = "GRAPH.RO_QUERY" if read_only else "GRAPH.QUERY"
        try:
            packed = self._connection.pack_commands([(command, self._graph, text, "--compact") for text in texts])
            self._connection.send_packed_command(packed)
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise translate(error, not read_only) from error
        self._open += len(texts)

    def answered(self, within_s: float) -> bool:
        """Whether `receive` would not wait long, for one answer or an error; looks for so long at most."""
        if not self._open:
            return True
        began = time.perf_counter()
        try:
            return bool(self._connection.can_read(within_s))
        except (redis.exceptions.RedisError, OSError):
            return True
        finally:
            self._waited_s += time.perf_counter() - began

    def receive(self, read_only: bool = False) -> list[list[Any]]:
        """Rows of the oldest query whose answer was not received yet.

        Raises:
            OutcomeUnknown: the connection broke; what was sent may have been done. Unavailable: likewise, reading.
            QueryFailed: this query was refused; the following answers can still be received.
        """
        began, self._waited_s = time.perf_counter() - self._waited_s, 0.0
        try:
            answer = self._connection.read_response()
        except redis.exceptions.ResponseError as error:
            self._open -= 1
            raise translate(error, not read_only) from error
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise translate(error, not read_only) from error
        self._open -= 1
        _WRITE_SECONDS.observe(time.perf_counter() - began)
        return _rows(answer)

    def send_rows(self, template: str, parameters: Mapping[str, Any], rows: Mapping[str, str], lane: int = 0) -> None:
        """Send one query with rows, whose texts are joined by commas, as its parameters of these names.

        Whatever its lane, it runs after those before it.
        """
        lists = "".join(f"{name}=[{texts}] " for name, texts in rows.items())
        self.send([f"{header(parameters)}{lists}{template}"])

    def _check_idle(self) -> None:
        if self._open:
            raise RuntimeError(f"{self._open} answers of this connection were not received yet: they would be taken")

    def drain(self) -> None:
        """Forget answers that nobody waits for any more."""
        while self._open:
            try:
                self.receive()
            except (QueryFailed, Overloaded):
                continue

    def write(self, template: str, parameters: Mapping[str, Any]) -> list[list[Any]]:
        """Run one writing template and wait."""
        self._check_idle()
        self.send([header(parameters) + template])
        return self.receive()

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> list[list[Any]]:
        """Run one reading template and wait; an empty graph answers with no rows.

        Args:
            timeout_s: the store gives up after this; None for its own default.

        Raises:
            TooCostly: it gave up after `timeout_s`. Overloaded: too many wait, or its own default has passed.
        """
        return self.read_all([(template, parameters)], timeout_s)[0]

    def read_all(
        self, queries: Sequence[tuple[str, Mapping[str, Any]]], timeout_s: float | None = None
    ) -> list[list[list[Any]]]:
        """Run several reading templates, sent at once, and wait for all: rows of each. See `read`.

        The shard works on one query of a connection after the other, so every second one takes another connection.
        """
        self._check_idle()
        options = ("timeout", max(1, int(timeout_s * 1000))) if timeout_s else ()
        commands = [
            ("GRAPH.RO_QUERY", self._graph, header(parameters) + template if parameters else template, "--compact",
             *options)
            for template, parameters in queries
        ]  # fmt: skip
        try:
            with _READ_SECONDS.time():
                sent = [(self._connection, commands[::2]), (self._beside, commands[1::2])]
                for connection, mine in sent:
                    if mine:
                        connection.send_packed_command(connection.pack_commands(mine))
                answers: list[Any] = [None] * len(commands)
                for first, (connection, mine) in enumerate(sent):
                    answers[first::2] = [_answer(connection) for _ in mine]
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise translate(error, False) from error
        for answer in answers:
            if isinstance(answer, redis.exceptions.ResponseError):
                raise translate(answer, False, timeout_s) from answer
        return list(map(_rows, answers))

    def answers(self) -> bool:
        """Whether the server answers; its main thread does so however many queries run or wait."""
        self._check_idle()
        try:
            self._connection.send_command("PING")
            return bool(self._connection.read_response() == b"PONG")
        except (redis.exceptions.RedisError, OSError):
            self.close()
            return False

    def create_index(self, pattern: str, on: str) -> None:
        """An index, if it is not there. `pattern` is `(x:Label)` or `()-[x:TYPE]-()`. Safe to call twice."""
        self._check_idle()
        try:
            self.send([f"CREATE INDEX FOR {pattern} ON (x.{on})"])
            self.receive()
        except QueryFailed as error:
            if "already indexed" not in str(error):
                raise

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        self._open, self._waited_s = 0, 0.0
        self._connection.disconnect()
        self._beside.disconnect()
