"""What the Neo4j client says when things go wrong, on a real server and through a proxy that fails."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from neo4j.exceptions import AuthError
from pydantic import SecretStr

from cluster.errors import OutcomeUnknown, Overloaded, TooCostly, Unavailable
from cluster.stores.graph import QueryFailed
from cluster.stores.neo4j_client import Neo4jClient, of_one_map
from cluster.telemetry import metrics
from tests.fault_proxy import HALF_OPEN, Direction, FaultProxy, Faults
from tests.faults.harness import wait_until
from tests.graph_stores import Neo4jStore

pytestmark = [pytest.mark.services, pytest.mark.production]
SECRET = "pass-phrase-7"
SLOW = "UNWIND range(1, 50000) AS a UNWIND range(1, 50000) AS b WITH a, b WHERE a * b = 0 RETURN count(a)"


@pytest.fixture
def client(neo4j_store: Neo4jStore) -> Iterator[Neo4jClient]:
    """A connection to an empty graph."""
    made: Neo4jClient = neo4j_store.client(neo4j_store.fresh())
    yield made
    made.close()
    neo4j_store.fresh()


@pytest.fixture
def proxy(neo4j_store: Neo4jStore) -> Iterator[FaultProxy]:
    """In front of the server."""
    address = urlsplit(neo4j_store.uri)
    with FaultProxy.tcp((address.hostname or "", address.port or 7687)) as made:
        yield made


def behind(proxy: FaultProxy, store: Neo4jStore, timeout_s: float = 5.0) -> Neo4jClient:
    host, port = proxy.address
    return Neo4jClient(f"{urlsplit(store.uri).scheme}://{host}:{port}", store.user, store.password, timeout_s)


def test_a_wrong_password_is_a_matter_of_settings_and_no_secret_is_told(neo4j_store: Neo4jStore) -> None:
    client = Neo4jClient(neo4j_store.uri, "nobody", SecretStr(SECRET))
    if client.answers():
        client.close()
        pytest.skip("this server asks for no password")
    with pytest.raises(Unavailable, match="the password of Neo4j shards") as refused:
        client.read("RETURN 1", {})
    assert isinstance(refused.value.__cause__, AuthError)
    assert SECRET not in f"{refused.value} {refused.value.__cause__}"
    client.close()


def test_of_a_query_s_parameters_the_server_sees_one_map(client: Neo4jClient) -> None:
    """So it does not plan the query anew for other lengths of lists and texts."""
    template = "UNWIND $rows AS r WITH r WHERE r IN $values0 RETURN r, $text LIMIT $limit"
    assert of_one_map(template) == "UNWIND $p.rows AS r WITH r WHERE r IN $p.values0 RETURN r, $p.text LIMIT $p.limit"
    for length in (1, 50, 500):
        rows = client.read(template, {"rows": list(range(length)), "values0": [0], "text": "a" * length, "limit": 1})
        assert rows == [[0, "a" * length]]
    with pytest.raises(QueryFailed, match="text"):
        client.read(template, {"rows": [], "values0": [], "limit": 1})


def test_queries_sent_at_once_answer_in_order_and_a_refused_one_takes_nobodys_answer(client: Neo4jClient) -> None:
    for number in range(3):
        client.send("CREATE (x:X {n: $n}) RETURN x.n", {"n": number})
    client.send("RETURN nothing", {})
    client.send("MATCH (x:X) RETURN count(x)", {})
    assert [client.receive() for _ in range(3)] == [[[0]], [[1]], [[2]]]
    with pytest.raises(QueryFailed):
        client.receive()
    assert client.receive() == [[3]]
    one = ("RETURN $n", {"n": 1})
    assert client.read_all([one, ("MATCH (x:X) RETURN count(x)", {}), one], 5.0) == [[[1]], [[3]], [[1]]]


def test_a_reading_writes_nothing(client: Neo4jClient) -> None:
    with pytest.raises(QueryFailed):
        client.read("CREATE (x:X)", {})
    assert client.read("MATCH (x) RETURN count(x)", {}) == [[0]]


def test_answers_that_were_not_received_are_not_taken_for_others(client: Neo4jClient) -> None:
    client.send("RETURN 1", {})
    for call in (client.read, client.write):
        with pytest.raises(RuntimeError, match="not received"):
            call("RETURN 2", {})
    assert client.receive() == [[1]]


def test_a_call_s_time_has_what_was_waited_before_it_was_received(client: Neo4jClient) -> None:
    seconds = metrics.STORE_QUERY_SECONDS.labels("neo4j", "write")._sum
    before = seconds.get()
    client.send("UNWIND range(1, 2000000) AS i RETURN max(i)", {})
    began = time.perf_counter()
    assert not client.answered(0.0)
    while not client.answered(0.02):
        pass
    waited_s = time.perf_counter() - began
    client.receive()
    assert seconds.get() - before > 0.8 * waited_s > 0.02
    assert client.answered(0.0), "nothing was sent"


def test_a_query_that_outlasts_what_it_was_given_is_too_costly(client: Neo4jClient) -> None:
    for given_s in (0.05, 0.0004):
        with pytest.raises(TooCostly, match="ask for less"):
            client.read(SLOW, {}, given_s)
    assert client.answers()


def test_over_the_clients_own_bound_nothing_is_known_of_the_query(neo4j_store: Neo4jStore) -> None:
    short = neo4j_store.client("neo4j", timeout_s=2.0)
    with pytest.raises(Overloaded):
        short.read(SLOW, {})
    with pytest.raises(Overloaded):
        short.write(SLOW, {})
    short.close()


def test_where_nobody_listens_there_is_no_answer() -> None:
    client = Neo4jClient("bolt://127.0.0.1:1", "neo4j", SecretStr(SECRET), 1.0)
    for call, kind in ((client.read, Unavailable), (client.write, OutcomeUnknown)):
        with pytest.raises(kind) as told:
            call("RETURN 1", {})
        assert SECRET not in str(told.value)
        assert "\n" not in str(told.value)
    assert not client.answers()
    client.close()


def test_a_commit_whose_answer_is_lost_leaves_the_outcome_unknown(
    client: Neo4jClient, proxy: FaultProxy, neo4j_store: Neo4jStore
) -> None:
    writer = behind(proxy, neo4j_store)
    assert writer.read("RETURN 1", {}) == [[1]]
    proxy.set(HALF_OPEN)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(writer.write, "MERGE (x:X {n: 1})", {})
        wait_until(lambda: client.read("MATCH (x:X) RETURN count(x)", {}) == [[1]], 4.0, "it is done")
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            told.result()
    proxy.heal()
    writer.write("MERGE (x:X {n: 1})", {})
    assert client.read("MATCH (x:X) RETURN count(x)", {}) == [[1]]
    writer.close()


def test_a_write_is_done_or_not_wherever_its_connection_is_cut(
    client: Neo4jClient, proxy: FaultProxy, neo4j_store: Neo4jStore
) -> None:
    told: list[bool] = []
    for at in range(0, 400, 20):
        writer = behind(proxy, neo4j_store)
        writer.read("RETURN 1", {})
        way = Direction(cut_after_bytes=at)
        proxy.set(Faults(to_client=way) if at % 40 else Faults(to_server=way))
        try:
            told.append(writer.write("CREATE (x:X {n: $n}) RETURN x.n", {"n": at}) == [[at]])
        except OutcomeUnknown:
            told.append(False)
        proxy.set(Faults())
        writer.close()
        there = client.read("MATCH (x:X {n: $n}) RETURN count(x)", {"n": at})[0][0]
        assert there == 1 or not told[-1]
    assert set(told) == {True, False}


def test_a_half_open_connection_is_given_up(proxy: FaultProxy, neo4j_store: Neo4jStore) -> None:
    writer = behind(proxy, neo4j_store, timeout_s=0.5)
    wait_until(writer.answers, message="it is connected, and has logged in, in its time")
    assert writer.read("RETURN 1", {}) == [[1]]
    proxy.set(HALF_OPEN)
    with pytest.raises(OutcomeUnknown):
        writer.write("RETURN 1", {})
    with pytest.raises(Unavailable):
        writer.read("RETURN 1", {})
    assert not writer.answers()
    proxy.set(Faults())
    wait_until(writer.answers, message="it answers again")
    writer.close()


BLOCKED = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN count(*)"


def test_a_deadlock_is_counted_and_the_transaction_done_again(client: Neo4jClient, neo4j_store: Neo4jStore) -> None:
    client.write("CREATE (:A {n: 0}), (:B {n: 0})", {})
    before = metrics.DEADLOCKS._value.get()
    with neo4j_store.driver() as driver, driver.session() as session, driver.session() as watcher:
        with session.begin_transaction() as elder:
            elder.run("MATCH (a:A) SET a.n = a.n + 1").consume()
            client.send("MATCH (b:B) SET b.n = b.n + 1 WITH b MATCH (a:A) SET a.n = a.n + 1", {})
            while watcher.run(BLOCKED).values() == [[0]]:
                time.sleep(0.05)
            elder.run("MATCH (b:B) SET b.n = b.n + 1").consume()  # the younger transaction is ended
            elder.commit()
        assert client.receive() == []
    assert metrics.DEADLOCKS._value.get() - before >= 1
    assert client.read("MATCH (x) RETURN x.n", {}) == [[2], [2]]


def test_rows_that_were_written_are_not_kept_until_the_collector_comes(client: Neo4jClient) -> None:
    rows = [{"at": n} for n in range(10)]
    gc.disable()
    try:
        client.write("UNWIND $rows AS r CREATE (:T {at: r.at})", {"rows": rows})
        wait_until(lambda: sys.getrefcount(rows) == 2, 5.0, "nobody else has them")
    finally:
        gc.enable()
