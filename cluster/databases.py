"""What the graph databases write differently: the one value that the templates take for each of them.

Everything else in `dialect.py` and `query/cypher.py` is text that both take.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """Expressions and clauses of one database, as formats for names of variables.

    Args:
        name: of the database, as metrics show it.
        degree, typed_degree: a node's degree, in all, and counting the types of a list.
        differ: whether two nodes are not the same.
        per_row: a subquery for each row, given the variables that it takes and its text.
        seek: behind a pattern: its relationship `x` of this type is looked up by `_k`.
        hold: what a write begins with: the cursors of its partitions ($partitions) are its own until it is committed.
        hold_all: likewise the shard's node and every cursor, for a change of the epoch, of leases or of ownership.
        planned_once: what a query begins with whose plan is right however much there is: it is kept.
        seeks_prefixes: whether an index finds texts by how they begin. Where it does not, nodes have their case's tag
            indexed, too.
        upserts_cheaply: whether nodes that are not there cost less by `upsert_nodes` than by `create_nodes`.
        types_at_once: relationship types whose rows one query takes, with those of nodes; 0: it takes those of one
            label or type.
    """

    name: str
    degree: str
    typed_degree: str
    differ: str
    per_row: str
    seek: str = ""
    hold: str = ""
    hold_all: str = ""
    planned_once: str = ""
    seeks_prefixes: bool = False
    upserts_cheaply: bool = False
    types_at_once: int = 0


FALKORDB = Dialect(
    name="falkordb",
    degree="indegree({0}) + outdegree({0})",
    typed_degree="indegree({0}, {1}) + outdegree({0}, {1})",
    differ="ID({0}) <> ID({1})",
    per_row="CALL {{ WITH {0} {1} }}",
)
"""Its writes are serial, so that what a query's beginning sees holds to its end: it holds nothing.

Of eleven queries for 40 nodes and 40 relationships of ten types it spends a seventh on their number; for 400 of each it
took 8 to 20% more as one query.
"""

NEO4J = Dialect(
    name="neo4j",
    degree="COUNT {{ ({0})--() }}",
    typed_degree="COUNT {{ ({0})-[r]-() WHERE type(r) IN {1} }}",
    differ="{0} <> {1}",
    per_row="CALL ({0}) {{ {1} }}",
    seek=" USING INDEX SEEK x:`{0}`(_k)",
    hold=(
        "UNWIND $partitions AS p WITH p ORDER BY p "
        "MATCH (l:_Cursor {_k: p}) SET l._held = true WITH count(l) AS holding "
    ),
    hold_all=(
        "OPTIONAL MATCH (m:_Shard {_k: 'shard'}) SET m._held = true WITH count(m) AS holding "
        "OPTIONAL MATCH (l:_Cursor) WITH l ORDER BY l._k SET l._held = true WITH count(l) AS holding "
    ),
    planned_once="CYPHER replan=skip ",
    seeks_prefixes=True,
    upserts_cheaply=True,
    types_at_once=10,
)
"""Its transactions see what others have committed meanwhile. To set a property locks the node until the commit, and
what is compared is read after that; so a writer that lost its lease or epoch is refused whenever that happens. Locks
are taken in one order (shard, cursors by key, then data, which no two partitions share): nobody waits in a circle.

While there are a few relationships of a type its planner takes a scan of their index for cheaper than a seek a row, and
keeps that plan while they become many: each row then costs as much as all that are there. So such lookups say what they
are. (Nodes have a uniqueness constraint, which it knows to give one row.)

An index more costs 4 to 8 µs a node, so cases are found by how keys begin. And where a query looks a node up and then
creates one, it first finishes all rows of the one and then those of the other; `MERGE` does both row by row.

So what finds all it needs by key need not be planned anew as a graph grows, which took more than a second where a query
has many parts, and its plan is kept (`planned_once`).

A query, which is a transaction, takes it 3 ms whatever it writes. 40 nodes and 40 relationships of ten types took 32 ms
as eleven queries and 7 as one; 400 of each 70 and 46.
"""
