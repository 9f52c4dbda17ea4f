"""Neo4j over bolt: fixed query templates in, rows out, errors translated.

    send(template, parameters) ─► a thread of this client's own ─► one query, one transaction ─► receive() -> rows

The driver blocks, and waits for an answer for as long as the connection seems to stand. So it works on a thread of the
client's own: `send` does not wait, and who waits gives up in time; the connection is then closed under the thread.
"""

from __future__ import annotations

import random
import re
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import neo4j
from neo4j.exceptions import DriverError, Neo4jError
from pydantic import SecretStr

from cluster.databases import NEO4J
from cluster.errors import IntelGraphError, OutcomeUnknown, Overloaded, Rejected, TooCostly, Unavailable
from cluster.stores.graph import QueryFailed
from cluster.stores.neo4j_errors import DEADLOCK, may_succeed, translate
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.neo4j")
SCHEMES = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
ATTEMPTS = 5
"""Of a transaction that the server has rolled back for a reason that passes."""
FIRST_WAIT_S = 0.02
CONNECT_S = 5.0
GRACE_S = 3.0
"""How much longer than the server's own bound a client waits: a server looks for what is over time every 2 s unless its
`db.transaction.monitor.check.interval` says otherwise."""
_READ_SECONDS = metrics.STORE_QUERY_SECONDS.labels("neo4j", "read")
_WRITE_SECONDS = metrics.STORE_QUERY_SECONDS.labels("neo4j", "write")
Rows = list[list[Any]]
_PARAMETER = re.compile(r"\$(\w+)")


class Neo4jClient:
    """A connection to one shard. For one thread.

    Args:
        uri: `bolt://host:port` or `neo4j://host:port`; `bolt+s`, `neo4j+s` over TLS with a certificate that the
            system trusts, `bolt+ssc`, `neo4j+ssc` over TLS with any. User and password are no part of it.
        user: of the database.
        password: of that user; None where the server asks for none.
        timeout_s: longest time for one query, at the server.
        database: name of the database on that server.
        ca_file: PEM; vouches for the server of `+s` instead of the system's authorities.
        lanes: writing queries that it has at work beside each other, each on a thread and a connection of its own.

    Raises:
        Rejected: the address is none of these, or the file is no PEM of certificates.
    """

    dialect = NEO4J

    def __init__(
        self,
        uri: str,
        user: str,
        password: SecretStr | None,
        timeout_s: float = 30.0,
        database: str = "neo4j",
        ca_file: Path | None = None,
        lanes: int = 1,
    ) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.username or parts.password:
            raise Rejected("a Neo4j shard's address is bolt://host:port, without user and password; see the settings")
        self._uri, self._user, self._password, self._database = uri, user, password, database
        self._timeout_s = timeout_s
        self._trust: dict[str, Any] = {}
        if ca_file is not None and parts.scheme in ("bolt+s", "neo4j+s"):
            _check_authorities(ca_file)
            self._uri = uri.replace("+s:", ":", 1)  # the driver takes either the scheme's word or such settings
            self._trust = {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(str(ca_file))}
        self._driver: neo4j.Driver | None = None
        self.lanes = lanes
        self._threads: tuple[ThreadPoolExecutor, ...] = ()
        self._sent: deque[tuple[Future[Rows], float]] = deque()
        """With the time that each may take, seconds."""
        self._waited_s = 0.0
        """For the answer that is received next."""

    def _opened(self) -> neo4j.Driver:
        if self._driver is None:
            secret = self._password.get_secret_value() if self._password else ""
            self._driver = neo4j.GraphDatabase.driver(
                self._uri,
                auth=(self._user, secret),
                connection_timeout=min(self._timeout_s, CONNECT_S),
                connection_acquisition_timeout=self._timeout_s,
                notifications_min_severity=neo4j.NotificationMinimumSeverity.OFF,
                telemetry_disabled=True,
                **self._trust,
            )
            self._threads = tuple(ThreadPoolExecutor(1, thread_name_prefix="neo4j") for _ in range(self.lanes))
        return self._driver

    # --- writing

    def send(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None, lane: int = 0) -> None:
        """Send a writing query without waiting; `receive` has to be called once for each, in order."""
        driver, within_s = self._opened(), timeout_s or self._timeout_s
        work = self._threads[lane].submit(self._write, driver, template, parameters, within_s)
        self._sent.append((work, within_s))

    def send_rows(
        self, template: str, parameters: Mapping[str, Any], rows: Mapping[str, Sequence[Any]], lane: int = 0
    ) -> None:
        """Send a writing query with rows as its parameters of these names, after those of its lane."""
        self.send(template, {**parameters, **rows}, lane=lane)

    def answered(self, within_s: float) -> bool:
        """Whether `receive` would not wait; looks for so long at most."""
        if not self._sent:
            return True
        began = time.perf_counter()
        done = wait([self._sent[0][0]], within_s).done
        self._waited_s += time.perf_counter() - began
        return bool(done)

    def receive(self) -> Rows:
        """Rows of the oldest query whose answer was not received yet; it is committed.

        Raises:
            OutcomeUnknown: the connection broke; what was sent may have been done. Unavailable: it was not.
            QueryFailed, Overloaded: this query was refused; the following answers can still be received.
        """
        began, self._waited_s = time.perf_counter() - self._waited_s, 0.0
        try:
            return self._await(*self._sent.popleft(), wrote=True)
        finally:
            _WRITE_SECONDS.observe(time.perf_counter() - began)

    def write(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> Rows:
        """Run one writing template and wait until it is committed.

        Args:
            timeout_s: the server gives up after this; None for this client's own bound.
        """
        self._check_idle()
        self.send(template, parameters, timeout_s)
        return self.receive()

    def _write(self, driver: neo4j.Driver, template: str, parameters: Mapping[str, Any], within_s: float) -> Rows:
        """One transaction; again where the server has rolled it back for a reason that passes."""
        until, wait_s, left = time.monotonic() + within_s, FIRST_WAIT_S, ATTEMPTS
        while True:
            try:
                return self._run(driver, neo4j.WRITE_ACCESS, template, parameters, until - time.monotonic())
            except (DriverError, OSError) as error:
                raise translate(error, True) from error
            except Neo4jError as error:
                left -= 1
                if error.code == DEADLOCK:
                    metrics.DEADLOCKS.inc()
                if not left or not may_succeed(error) or time.monotonic() + wait_s > until:
                    raise translate(error, True) from error
                LOG.warning("transaction_again", code=error.code, attempts_left=left)
            time.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s *= 2

    def _run(
        self, driver: neo4j.Driver, access: str, template: str, parameters: Mapping[str, Any], timeout_s: float
    ) -> Rows:
        """One query, which is a transaction: the server commits it before it says that it is done.

        A transaction over several messages would hold its locks for as long as a client stands still between two.
        """
        if missing := _names(template) - parameters.keys():  # the server would take them for null
            raise QueryFailed(f"a query is not given {', '.join(sorted(missing))}")
        query = neo4j.Query(of_one_map(template), timeout=max(0.001, timeout_s))
        # Sessions and results refer to each other and to what was given: rows would stay until the collector comes.
        given = dict(parameters)
        try:
            with driver.session(database=self._database, default_access_mode=access, fetch_size=-1) as session:
                return session.run(query, {"p": given}).values()
        finally:
            given.clear()

    # --- reading

    def read(self, template: str, parameters: Mapping[str, Any], timeout_s: float | None = None) -> Rows:
        """Run one reading template and wait.

        Args:
            timeout_s: the server gives up after this; None for this client's own bound.

        Raises:
            TooCostly: it gave up after `timeout_s`. Overloaded: after this client's own bound. Unavailable.
        """
        return self.read_all([(template, parameters)], timeout_s)[0]

    def read_all(self, queries: Sequence[tuple[str, Mapping[str, Any]]], timeout_s: float | None = None) -> list[Rows]:
        """Run several reading templates and wait for all: rows of each. See `read`; the time is for each of them."""
        self._check_idle()
        driver = self._opened()
        with _READ_SECONDS.time():
            asked = [self._threads[0].submit(self._read, driver, *query, timeout_s) for query in queries]
            try:
                return [self._await(one, timeout_s or self._timeout_s, wrote=False) for one in asked]
            except BaseException:
                for one in asked:
                    one.cancel()
                raise

    def _read(
        self, driver: neo4j.Driver, template: str, parameters: Mapping[str, Any], timeout_s: float | None
    ) -> Rows:
        try:
            return self._run(driver, neo4j.READ_ACCESS, template, parameters, timeout_s or self._timeout_s)
        except (Neo4jError, DriverError, OSError) as error:
            raise translate(error, False, timeout_s) from error

    def answers(self) -> bool:
        """Whether the server answers, however many queries run or wait."""
        try:
            return self.read("RETURN 1", {}) == [[1]]
        except (Unavailable, Overloaded, Rejected):
            return False

    def _await(self, future: Future[Rows], timeout_s: float, *, wrote: bool) -> Rows:
        try:
            return future.result(timeout_s + GRACE_S)
        except TimeoutError as error:
            self._cut()
            if wrote:
                raise OutcomeUnknown("the shard did not answer a write in time", 0.5) from error
            raise Unavailable("the shard does not answer in time", 1.0) from error
        except (QueryFailed, Overloaded, TooCostly):
            raise
        except IntelGraphError:
            self.close()
            raise

    def _check_idle(self) -> None:
        if self._sent:
            raise RuntimeError(f"{len(self._sent)} answers of this connection were not received yet")

    def close(self) -> None:
        """Close the connections once the queries that run have ended, and drop those that wait; the next call opens new
        ones. Does not block."""
        driver, threads = self._forget()
        if driver is not None:
            threads[0].submit(_close, driver, threads[1:])  # by a thread that uses it
            for thread in threads:
                thread.shutdown(wait=False)

    def _cut(self) -> None:
        """Close the connections under a query that does not end."""
        driver, threads = self._forget()
        for thread in threads:
            thread.shutdown(wait=False)
        if driver is not None:
            with suppress(DriverError, OSError, BufferError):
                driver.close()

    def _forget(self) -> tuple[neo4j.Driver | None, tuple[ThreadPoolExecutor, ...]]:
        driver, threads = self._driver, self._threads
        self._driver, self._threads, self._waited_s = None, (), 0.0
        while self._sent:
            self._sent.pop()[0].cancel()
        return driver, threads


@lru_cache(maxsize=1024)
def of_one_map(template: str) -> str:
    """A template whose parameters are members of one, `p`.

    The server plans a query anew, which takes as long as writing some thousand rows, wherever the types of its
    parameters differ from those before, or the lengths of lists and texts among them by an order of magnitude. Of a map
    it sees no more than that it is one.
    """
    return _PARAMETER.sub(r"$p.\1", template)


@lru_cache(maxsize=1024)
def _names(template: str) -> frozenset[str]:
    return frozenset(_PARAMETER.findall(template))


def _close(driver: neo4j.Driver, others: Sequence[ThreadPoolExecutor]) -> None:
    for other in others:
        other.shutdown(wait=True)
    driver.close()


def _check_authorities(path: Path) -> None:
    """The driver would say that the server does not answer."""
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise Rejected(f"shards.neo4j_ca_file, {path}, cannot be used: {error.strerror or error}") from error
