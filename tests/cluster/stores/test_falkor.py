from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from cluster.embedded import Running, kill_server, start
from cluster.errors import OutcomeUnknown, Overloaded, Rejected, TooCostly, Unavailable
from cluster.stores.falkor import FalkorClient, QueryFailed, translate
from cluster.telemetry import metrics
from tests.conftest import StartServer

pytestmark = pytest.mark.services


def test_a_shard_that_is_not_serving_yet_is_asked_again_later(start_server: StartServer) -> None:
    before = start_server("shard")
    kill_server(before.spec)
    seen: list[Exception] = []

    def ask(new: Running, operator: Any) -> None:
        client = FalkorClient(f"unix://{new.socket}", new.password)
        for call in (client.read, client.write):
            with pytest.raises(Unavailable) as refused:
                call("RETURN 1", {})
            seen.append(refused.value)
        client.close()

    again = start(before.spec, ask)
    assert len(seen) == 2
    assert FalkorClient(f"unix://{again.socket}", again.password).write("RETURN 1", {}) == [[1]]


def test_a_command_that_our_user_may_not_run_is_no_matter_of_time() -> None:
    assert type(translate(redis.exceptions.NoPermissionError("no"), False)) is Rejected


def test_queries_sent_at_once_answer_in_order_and_a_refused_one_takes_nobodys_answer(
    falkor_server: Running, unique: str
) -> None:
    client = FalkorClient(f"unix://{falkor_server.socket}", falkor_server.password, graph=unique)
    one = ("RETURN $n", {"n": 1})
    assert client.read_all([one, ("MATCH (x) RETURN x", {})], 1.0) == [[], []]  # there is no graph yet
    client.write("CREATE (:X {text: 'é', n: 2, part: 0.5, yes: true, list: [1, 'a']})", {})
    whole = {"text": "é", "n": 2, "part": 0.5, "yes": True, "list": [1, "a"]}
    assert client.read_all([one, ("MATCH (x:X) RETURN properties(x)", {}), one]) == [[[1]], [[whole]], [[1]]]
    with pytest.raises(QueryFailed):
        client.read_all([one, ("RETURN nothing", {}), ("RETURN 3", {})], 1.0)
    with pytest.raises(TooCostly):
        client.read_all([one, (SLOW, {}), ("RETURN 3", {})], 0.05)
    assert client.read("RETURN 4", {}) == [[4]]
    client.close()


SLOW = "UNWIND range(1, 50000) AS a UNWIND range(1, 50000) AS b WITH a, b WHERE a * b = 0 RETURN count(a)"
"""It runs for minutes, in little memory."""


def test_a_query_that_outlasts_what_it_was_given_is_too_costly(falkor_server: Running, unique: str) -> None:
    client = FalkorClient(f"unix://{falkor_server.socket}", falkor_server.password, graph=unique)
    client.write("CREATE (:X)", {})
    for given_s in (0.05, 0.0004):  # the store's own unit is a millisecond, and 0 is no bound
        with pytest.raises(TooCostly, match="ask for less"):
            client.read(SLOW, {}, given_s)
    assert client.read("MATCH (x) RETURN count(x)", {}, 1.0) == [[1]]
    assert client.answers()
    client.close()


def test_over_the_stores_own_bound_nothing_is_known_of_the_query() -> None:
    late = redis.exceptions.ResponseError("Query timed out")
    assert type(translate(late, False)) is Overloaded is type(translate(late, True))
    assert type(translate(late, False, 1.0)) is TooCostly
    waiting = redis.exceptions.ResponseError("Max pending queries exceeded")
    assert type(translate(waiting, False, 1.0)) is Overloaded


def test_a_server_that_dies_at_work_is_an_answer_and_an_unknown_outcome(start_server: StartServer) -> None:
    running = start_server("shard")
    client = FalkorClient(f"unix://{running.socket}", running.password)
    client.send(["UNWIND range(1, 100000000) AS i WITH max(i) AS m CREATE (:Entity {m: m})"])
    assert not client.answered(0.05)
    kill_server(running.spec)
    assert client.answered(30.0)
    with pytest.raises(OutcomeUnknown):
        client.receive()
    assert client.answered(0.0), "nothing is waited for"


def test_a_call_s_time_has_what_was_waited_before_it_was_received(falkor_server: Running, unique: str) -> None:
    client = FalkorClient(f"unix://{falkor_server.socket}", falkor_server.password, graph=unique)
    seconds = metrics.STORE_QUERY_SECONDS.labels("falkordb", "write")._sum
    before = seconds.get()
    client.send(["UNWIND range(1, 3000000) AS i RETURN max(i)"])
    began = time.perf_counter()
    while not client.answered(0.02):
        pass
    waited_s = time.perf_counter() - began
    client.receive()
    assert seconds.get() - before > 0.8 * waited_s > 0.05
    client.close()


def test_a_server_that_is_stopped_does_not_answer(start_server: StartServer) -> None:
    running = start_server("shard")
    client = FalkorClient(f"unix://{running.socket}", running.password, timeout_s=0.5)
    assert client.answers()
    kill_server(running.spec)
    assert not client.answers()
