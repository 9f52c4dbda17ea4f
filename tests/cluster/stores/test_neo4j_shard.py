"""What only Neo4j needs: locks where FalkorDB's writes are serial, indexes that are waited for, values as they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import neo4j
import pytest

from cluster import dialect, dialect_shard
from cluster.batch import frame_of
from cluster.databases import NEO4J
from cluster.errors import Corrupt, Fenced
from cluster.ids import BUCKETS, bucket_of
from cluster.model import Kind, Record
from cluster.stores import neo4j_schema
from cluster.stores.graph import Fence, WriteCounts
from cluster.stores.neo4j_client import Neo4jClient, Rows, of_one_map
from cluster.stores.neo4j_rows import row
from cluster.stores.neo4j_shard import Neo4jShard
from cluster.stores.query_parts import Part, Way, template
from cluster.stores.shard_parameters import fenced, of_bucket, of_case, owning
from cluster.values import canonical_json
from tests.graph_stores import Neo4jStore
from tests.strategies import make

pytestmark = [pytest.mark.services, pytest.mark.production]
FENCE = Fence(1, 1, (0, 1))
HELD_S = 0.5
UPSERT = template(NEO4J, (Part((Kind.ENTITY, "Entity"), Way.UPSERT),))
ANN = make("t", "c", Kind.ENTITY, "person", "ann", "crm", 1)


@pytest.fixture
def shard(neo4j_store: Neo4jStore) -> Iterator[Neo4jShard]:
    """A shard on an empty graph, taken over by a writer."""
    client = neo4j_store.client(neo4j_store.fresh())
    made = neo4j_store.shard(client)
    made.prepare()
    made.raise_epoch(1)
    made.own(1, range(BUCKETS))
    made.take_lease(FENCE)
    yield made
    made.close()
    neo4j_store.fresh()


Begun = Callable[[str, Mapping[str, Any]], AbstractContextManager[Rows]]


@pytest.fixture
def begun(neo4j_store: Neo4jStore) -> Iterator[Begun]:
    """`with begun(template, parameters) as rows:` a transaction that is not committed before the block's end."""
    with neo4j_store.driver() as driver:

        @contextmanager
        def begin(template: str, parameters: Mapping[str, Any]) -> Iterator[Rows]:
            with driver.session() as session, session.begin_transaction() as transaction:
                yield transaction.run(template, dict(parameters)).values()
                transaction.commit()

        yield begin


def meanwhile(call: Callable[[], object]) -> Callable[[], Exception | None]:
    """Begins a call that has to wait; what is returned waits for its end and gives what it raised."""
    raised: list[Exception | None] = []

    def run() -> None:
        try:
            call()
            raised.append(None)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(HELD_S)
    assert thread.is_alive(), "it did not wait"

    def end() -> Exception | None:
        thread.join(20)
        return raised[0]

    return end


def write(shard: Neo4jShard, record: Record, fence: Fence = FENCE) -> WriteCounts:
    shard.see_cases(fence, {(record.tenant, record.case)})
    shard.begin([(fence, shard.encode(frame_of([record])))])
    return shard.finish()


def test_each_part_of_a_batch_may_bring_types_that_the_shard_has_no_index_of(shard: Neo4jShard) -> None:
    ends = ("person", "ann", "person", "bob")
    parts = [
        (Fence(1, 1, (lane,)), make("t", f"c{lane}", Kind.RELATIONSHIP, type_, "r", "crm", 1, ends=ends))
        for lane, type_ in enumerate(("KNOWS", "OWNS"))
    ]
    shard.see_cases(FENCE, {(record.tenant, record.case) for _, record in parts})
    shard.begin([(fence, shard.encode(frame_of([record]))) for fence, record in parts])
    assert shard.finish().all.applied == 2
    assert {thing.type for case in ("c0", "c1") for thing in shard.things("t", case)} == {"KNOWS", "OWNS"}


def writing(record: Record) -> dict[str, Any]:
    return {**fenced(FENCE, [record.bucket]), "rows0": [row(record)], "named0": False, "number0": 1}


CHANGES: dict[str, Callable[[Neo4jShard], object]] = {
    "the epoch is raised": lambda shard: shard.raise_epoch(2),
    "a lease is taken": lambda shard: shard.take_lease(Fence(1, 2, (1,))),
    "a bucket is given up": lambda shard: shard.own(1, set(range(BUCKETS)) - {ANN.bucket}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_write_that_passed_the_guard_is_over_before_the_guard_changes(
    shard: Neo4jShard, begun: Begun, neo4j_store: Neo4jStore, change: str
) -> None:
    with begun(UPSERT, writing(ANN)) as rows:
        assert rows[0][0][0] == [dialect.NEW]
        end = meanwhile(lambda: CHANGES[change](shard))
    assert end() is None
    assert len(list(shard.things("t", "c"))) == 1
    later = neo4j_store.shard(neo4j_store.client("neo4j"))
    with pytest.raises(Fenced):
        write(later, ANN)
    later.close()


CHANGING: dict[str, tuple[str, dict[str, Any]]] = {
    "the epoch is raised": (dialect_shard.raise_epoch(NEO4J), {"epoch": 2, "none": "0" * BUCKETS}),
    "a lease is taken": (dialect_shard.lease(NEO4J), {"epoch": 1, "lease": 2, "partitions": ["1"]}),
    "a bucket is given up": (
        dialect_shard.own(NEO4J), owning(Fence(1, 0, ()), set(range(BUCKETS)) - {ANN.bucket}, ())
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGING)
def test_a_write_that_comes_while_the_guard_changes_waits_and_is_refused(
    shard: Neo4jShard, begun: Begun, change: str
) -> None:
    shard.see_cases(FENCE, {("t", "c")})
    with begun(*CHANGING[change]) as rows:
        assert rows
        end = meanwhile(lambda: write(shard, ANN))
    assert isinstance(end(), Fenced)
    assert list(shard.things("t", "c")) == []


def test_of_two_leases_taken_at_once_the_later_one_holds(shard: Neo4jShard, begun: Begun) -> None:
    later = {"epoch": 1, "lease": 9, "partitions": ["0", "1"]}
    with begun(dialect_shard.lease(NEO4J), later) as rows:
        assert rows == [[2]]
        end = meanwhile(lambda: shard.take_lease(Fence(1, 5, (0, 1))))
    assert isinstance(end(), Fenced)
    assert {cursor.lease for cursor in shard.cursors().values()} == {9}


def test_writers_of_other_partitions_do_not_wait_for_each_other(shard: Neo4jShard, begun: Begun) -> None:
    other = next(make("t", f"c{n}", 0, "person", "x", "crm", 1) for n in range(99) if bucket_of("t", f"c{n}") % 2)
    mine, theirs = Fence(1, 1, (0,)), Fence(1, 1, (1,))
    parameters = {**fenced(theirs, [other.bucket]), "rows0": [row(other)], "named0": False, "number0": 1}
    with begun(UPSERT, parameters) as rows:
        assert rows[0][0][0] == [dialect.NEW]
        assert write(shard, ANN, mine).all.applied == 1


def test_constraints_and_indexes_are_made_once_and_online(shard: Neo4jShard, monkeypatch: pytest.MonkeyPatch) -> None:
    types = neo4j_schema.index_of("KNOWS"), neo4j_schema.index_of("owns-1")
    online = neo4j_schema.apply(shard._client, frozenset(types), 60.0)
    assert online >= neo4j_schema.LABELS | set(types)
    written: list[str] = []
    monkeypatch.setattr(Neo4jClient, "write", lambda self, template, *_: written.append(template))
    shard.prepare()
    shard._index_types(["KNOWS", "owns-1"])
    assert written == []


def test_indexes_may_be_made_by_several_at_once(neo4j_store: Neo4jStore) -> None:
    wanted = frozenset(neo4j_schema.Index("NODE", f"Made{n}", "_k", n % 2 == 0) for n in range(4))
    indexes = wanted | {neo4j_schema.index_of(f"MADE_{n}") for n in range(3)}
    online: list[bool] = []

    def make_them() -> None:
        client = neo4j_store.client("neo4j")
        online.append(neo4j_schema.apply(client, indexes, 60.0) >= indexes)
        client.close()

    threads = [threading.Thread(target=make_them) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with neo4j_store.driver() as driver, driver.session() as session:
        for name in session.run("SHOW CONSTRAINTS YIELD name, labelsOrTypes AS l WHERE l[0] STARTS WITH 'Made'"):
            session.run(f"DROP CONSTRAINT {name['name']}").consume()
        for name in session.run("SHOW INDEXES YIELD name, labelsOrTypes AS l WHERE l[0] =~ 'M(ade|ADE_).*'"):
            session.run(f"DROP INDEX {name['name']}").consume()
    assert online == [True] * 4


def test_keys_are_unique_whoever_makes_them_at_once(shard: Neo4jShard, neo4j_store: Neo4jStore) -> None:
    def merge() -> None:
        client = neo4j_store.client("neo4j")
        for number in range(30):
            client.write("MERGE (x:Entity {_k: $key})", {"key": f"k{number}"})
        client.close()

    threads = [threading.Thread(target=merge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shard.read("MATCH (x:Entity) RETURN count(x)", {}) == [[30]]


def test_a_graph_that_breaks_a_constraint_is_corrupt(neo4j_store: Neo4jStore) -> None:
    client = neo4j_store.client(neo4j_store.fresh())
    twice = neo4j_schema.Index("NODE", "Twice", "_k", True)
    client.write("CREATE (:Twice {_k: 'a'}), (:Twice {_k: 'a'})", {})
    with pytest.raises(Corrupt):
        neo4j_schema.apply(client, frozenset({twice}), 20.0)
    client.close()
    neo4j_store.fresh()


def test_values_come_back_as_they_were_sent(shard: Neo4jShard) -> None:
    props = {
        "float": 0.1 + 0.2, "whole": 1.0, "zero": -0.0, "tiny": 5e-324, "huge": 1.7976931348623157e308,
        "least": -(2**63), "most": 2**63 - 1, "odd": 2**53 + 1, "yes": True, "empty": "", "none": [],
        "text": "a'\"\\\n\u2028\U0001f600`{}$", "texts": ["", "b"], "floats": [0.1 + 0.2, -0.0, 1.0],
        "integers": [2**63 - 1, -1], "flags": [True, False], "json": '[1,"a"]', "a.b": 1, "x-y": 2,
    }  # fmt: skip
    record = make("t", "c", Kind.ENTITY, "person", "values", "crm", 1, props=canonical_json(props))
    write(shard, record)
    (thing,) = shard.things("t", "c")
    assert thing.registers == {"crm": record}


WRITES_BY_KEY = {
    **{way.name: template(NEO4J, (Part((Kind.RELATIONSHIP, "KNOWS"), way),)) for way in Way},
    **{f"{way.name} with others": template(NEO4J, (Part((Kind.ENTITY, "Entity"), Way.UPSERT), *(
        Part((Kind.RELATIONSHIP, type_), way) for type_ in ("KNOWS", "OWNS", "SEES")
    ))) for way in Way},
    **{f"{way.name} {label}": template(NEO4J, (Part((kind, label), way),)) for kind, label in (
        (Kind.ENTITY, "Entity"), (Kind.CLAIM, "Claim"), (9, "Overlay")
    ) for way in Way},
    "replace": dialect.replace_relationships(NEO4J, "KNOWS"), "forget": dialect.forget_relationships(NEO4J, "KNOWS"),
    "replace Entity": dialect.replace_nodes(NEO4J, "Entity"), "forget Entity": dialect.forget_nodes(NEO4J, "Entity"),
    "cases Entity": dialect_shard.see_cases(NEO4J), "advance Entity": dialect_shard.advance(NEO4J),
}  # fmt: skip


@pytest.mark.parametrize("few", [0, 5, 50])
def test_few_things_are_looked_up_as_many_are(shard: Neo4jShard, neo4j_store: Neo4jStore, few: int) -> None:
    """A plan that scans an index is cheap only while there is little in it, and stays when there is much."""
    ends = [make("t", "c", Kind.ENTITY, "person", f"p{n}", "crm", n + 1) for n in range(min(few, 2))]
    links = [make("t", "c", Kind.RELATIONSHIP, "KNOWS", f"r{n}", "crm", n + 9, ends=("person", "p0", "person", "p1"))
             for n in range(few)]  # fmt: skip
    shard.begin([(FENCE, shard.encode(frame_of([*ends, *links])))])
    shard.finish()
    shard._index_types(["KNOWS", "OWNS", "SEES"])
    parameters = {**fenced(FENCE, [ANN.bucket]), "rows": [], "keys": [], "moves": [], "counts": [], "expected": 0}
    parameters |= {
        f"{name}{n}": value for n in range(4) for name, value in (("rows", []), ("named", False), ("number", 0))
    }
    with neo4j_store.driver() as driver, driver.session() as session:
        session.run("CALL db.clearQueryCaches()").consume()
        for name, query in WRITES_BY_KEY.items():
            used = _operators_of(session, query, parameters)
            if not name.endswith(dialect.NODE_LABELS):
                assert "DirectedRelationshipIndexSeek" in used, name
            assert not {operator for operator in used if "Scan" in operator}, name


CASES_OF = {
    "scan": dialect.scan_nodes, "visible": dialect.visible_nodes, "touched": dialect.touched_nodes,
    "drop": dialect_shard.drop_bucket,
}  # fmt: skip


@pytest.mark.parametrize("few", [0, 20])
def test_a_case_is_found_by_how_its_keys_begin(shard: Neo4jShard, neo4j_store: Neo4jStore, few: int) -> None:
    """A plan that looks at every node is cheap only while there are few, and stays when there are many."""
    people = [make("t", "c", Kind.ENTITY, "person", f"p{n}", "crm", n + 1) for n in range(few)]
    shard.see_cases(FENCE, {("t", "c")})
    shard.begin([(FENCE, shard.encode(frame_of(people)))])
    shard.finish()
    parameters = {
        **fenced(FENCE, []), **of_case("t", "c"), **of_bucket(1), "source": "", "version": "", "limit": 1,
    }  # fmt: skip
    with neo4j_store.driver() as driver, driver.session() as session:
        session.run("CALL db.clearQueryCaches()").consume()
        for way, template in CASES_OF.items():
            for label in dialect.NODE_LABELS:
                used = _operators_of(session, template(NEO4J, label), parameters)
                assert "NodeUniqueIndexSeekByRange" in used, (way, label, used)
                if way == "drop":  # it looks at all cursors, too
                    assert "NodeIndexSeekByRange" in used, "cases of a bucket are found by their tags"
                else:
                    assert not {operator for operator in used if "Scan" in operator}, (way, label, used)
        for relationships in (dialect.scan_relationships, dialect.visible_relationships, dialect.touched_relationships):
            used = _operators_of(session, relationships(NEO4J), parameters)
            assert "NodeUniqueIndexSeekByRange" in used, used
    indexes = {(index.name, index.property) for index in neo4j_schema.LABELS}
    assert not indexes & {(label, "_c") for label in dialect.NODE_LABELS}


def _operators_of(session: neo4j.Session, template: str, parameters: dict[str, Any]) -> set[str]:
    """What the server would do for a template as the client sends it."""
    plan = session.run(f"EXPLAIN {of_one_map(template)}", {"p": parameters}).consume().plan
    assert plan is not None
    return {operator.partition("@")[0] for operator in _operators(plan)}


def _operators(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["operatorType"]
    for child in plan.get("children", ()):
        yield from _operators(child)
