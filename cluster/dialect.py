"""How facts lie in a graph database, and the openCypher that writes and reads them: the part that FalkorDB and
Neo4j share, with what differs from databases.py. Queries are fixed templates; values are parameters, relationship types
allow-listed literal text. What a shard knows of itself is in dialect_shard.py.

Layout (a name that begins with `_` is ours, all others are the source's properties):

    (:Entity {_k, [_c], _type, _id, _v, _s, _x, [_d], [_m], …props})
    (:Entity)-[:TYPE {_k, _id, _v, _s, _x, [_d], [_m], …props}]->(:Entity)
    (:Claim  {_k, [_c], _e, _type, _id, _v, _s, _x, [_d], [_m], …props})    _e: store key of the subject
    (:Overlay{_k, [_c], _e, _o, _type, _id, _v, _s, _x, …props})             _k: digest of (source, thing); _o: owner
    (:_Case {_k, _c, tenant, case})                                          one a case that the shard has seen
    (:_Shard {_k: 'shard', raised, epoch, owned, owns, lacking})             4,096 characters 0 or 1; owns: booleans,
                                                                             which a query indexes in no time
    (:_Cursor {_k: partition, at, lease, counts…})                           how far the log is applied
    (:_Count {_k, tenant, source, epoch, applied, duplicate, stale})         outcomes of a source's epoch
    (:_Floor {_k, tenant, source, type, version, done})  (:_Priority {_k, tenant, source, stamp, priority})

    _k  store key (ids.py), indexed      _c  case tag (ids.py), indexed; things of FalkorDB have it, too
    _v  stamp: version, dot, hash        _s  source; '*' where several sources speak of the thing
    _d  true on a tombstone              _x  sidecar: JSON [event_time, partition, a_type, a_id, b_type, b_id,
    _m  with '*': JSON of all registers      claim, {property: exact value}] (what the database cannot hold)

An entity is visible where `_s IS NOT NULL AND _d IS NULL`: an end that waits for its own record has only `_k`.
A relationship is visible where its own `_d IS NULL` and both its ends are visible; one whose ends are not known
(its delete came first) hangs on its case's void node.

A thing of one source is written by a guarded query: versions are compared in the database. `upsert` does whatever
has to be done; two others do a part for less: `create` writes what is not there at all, `look` finds what need not be
written. What they leave, `upsert` does, so which comes first is a matter of speed alone. A row of another source
comes back as `OTHER`; the writer reads that thing's registers, folds them with `fold.merge`, and writes the result
whole (`_s` = '*', `_m`). All happen under the shard's epoch and the partition's lease, so a writer that lost either
writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.databases import Dialect

NEW, NEWER, DUPLICATE, STALE, OTHER = range(5)

SEVERAL = "*"
RESERVED_PROPERTIES = frozenset({"id", "tenant", "case"})

VISIBLE_NODE = "{0}._s IS NOT NULL AND {0}._d IS NULL"
VISIBLE_EDGE = "{0}._d IS NULL"
"""Formats for the visibility of a bound variable."""

ENTITY, CLAIM, OVERLAY = "Entity", "Claim", "Overlay"
NODE_LABELS = (ENTITY, CLAIM, OVERLAY)
_INDEXES = (
    (ENTITY, "_k"),
    (CLAIM, "_k"),
    (CLAIM, "_e"),
    (OVERLAY, "_k"),
    (OVERLAY, "_e"),
    (OVERLAY, "_o"),
    ("_Case", "_k"),
    ("_Count", "_k"),
)


def indexes(database: Dialect) -> tuple[tuple[str, str], ...]:
    """(label, property) of every index of nodes."""
    tagged = ("_Case",) if database.seeks_prefixes else NODE_LABELS
    return (*_INDEXES, *((label, "_c") for label in tagged))


def match_case(database: Dialect, x: str, label: str, tag: str, case: str) -> str:
    """The clause that finds a case's nodes of a label; conditions may follow with AND.

    Args:
        x: the variable that it binds.
        tag, case: expressions of the case's tag and of its key. A tag may be shared by two cases.
    """
    of_case = f"{x}._k STARTS WITH {case}"
    if database.seeks_prefixes:
        return f"MATCH ({x}:{label}) USING INDEX SEEK {x}:{label}(_k) WHERE {of_case}"
    return f"MATCH ({x}:{label}) WHERE {x}._c = {tag} AND {of_case}"


# Nothing is written unless the shard's raised epoch, the leases of every partition named and the ownership of
# every bucket named are as the writer believes; a query that was refused returns no row.
_CHECK = (
    "MATCH (m:_Shard {_k: 'shard'}) "
    "WITH m.raised AS raised, m.owns AS owns WHERE raised = $epoch AND ALL(b IN $buckets WHERE owns[b]) "
    "MATCH (l:_Cursor) WHERE l._k IN $partitions AND l.lease = $lease "
    "WITH count(l) AS held WHERE held = $held "
)


def guard(database: Dialect) -> str:
    """What a write of facts begins with."""
    return database.hold + _CHECK


_STATUS = (
    f"CASE WHEN x._v IS NULL THEN {NEW} WHEN x._s <> r._s THEN {OTHER} WHEN x._v < r._v THEN {NEWER} "
    f"WHEN x._v = r._v THEN {DUPLICATE} ELSE {STALE} END AS st"
)
_CONFLICT = "split(old, '.')[0] = split(r._v, '.')[0]"
_COUNTS = (
    f" RETURN [collect(st), collect(CASE WHEN $named# THEN r._k END), collect(CASE WHEN st = {OTHER} THEN r._k END), "
    f"collect(CASE WHEN st IN [{NEWER}, {STALE}] AND {_CONFLICT} THEN r._k END), []] AS o#"
)
"""Statuses; keys in the order of the statuses, where they are asked for: `MERGE` gives the rows that it created before
those that it found; keys of things that others speak of; keys of versions with two contents; keys of rows that still
have to be written."""
_SETTLED = (
    f" WITH x, r, x._v AS old, {_STATUS} RETURN [collect(CASE WHEN st > {NEWER} THEN st END), "
    f"collect(CASE WHEN $named# AND st > {NEWER} THEN r._k END), collect(CASE WHEN st = {OTHER} THEN r._k END), "
    f"collect(CASE WHEN st = {STALE} AND {_CONFLICT} THEN r._k END), collect(CASE WHEN st <= {NEWER} THEN r._k END)] "
    "AS o#"
)
"""The same where nothing is written."""
_MADE = " WITH collect(r._k) AS made RETURN [size(made), CASE WHEN size(made) < $number# THEN made ELSE [] END] AS o#"
"""How many were created, and which, where they are not all."""


def _by_key(database: Dialect) -> str:
    """What a write of facts begins with that finds all it needs by key: one plan is right for any graph."""
    return database.planned_once + guard(database)


def _part(result: str, n: int) -> str:
    """What a query's part of this number gives."""
    return result.replace("#", str(n))


def _when(condition: str, action: str) -> str:
    return f" FOREACH (_ IN CASE WHEN {condition} THEN [1] ELSE [] END | {action})"


def written(database: Dialect, parts: Sequence[str]) -> str:
    """The query of parts `upsert_nodes`, `create_relationships` and the like, all of them under one guard.

    Args:
        parts: numbered from 0; of several, each is a subquery. Part n takes $rows<n>, $named<n> and $number<n>, and the
            row has a list for each. No row, or no outcome: it was refused.
    """
    if len(parts) == 1:
        return _by_key(database) + parts[0]
    subqueries = "".join(f"CALL () {{ {part} }} " for part in parts)
    return f"{_by_key(database)}{subqueries}RETURN {', '.join(f'o{n}' for n in range(len(parts)))}"


def upsert_nodes(label: str, n: int = 0) -> str:
    """Write rows `r` (whole property maps) under their keys, each only where it is newer than what is there."""
    return (
        f"UNWIND $rows{n} AS r MERGE (x:{label} {{_k: r._k}}) WITH x, r, x._v AS old, {_STATUS}"
        f"{_when(f'st < {DUPLICATE}', 'SET x = r')}{_part(_COUNTS, n)}"
    )


def create_nodes(label: str, n: int = 0) -> str:
    """Write those of the rows under whose key there is no node."""
    return (
        f"UNWIND $rows{n} AS r OPTIONAL MATCH (x:{label} {{_k: r._k}}) WITH x, r WHERE x IS NULL "
        f"CREATE (n:{label}) SET n = r{_part(_MADE, n)}"
    )


def look_at_nodes(label: str, n: int = 0) -> str:
    """Write nothing: the outcomes of those rows that change nothing, and which others there are."""
    return f"UNWIND $rows{n} AS r OPTIONAL MATCH (x:{label} {{_k: r._k}}){_part(_SETTLED, n)}"


def replace_nodes(database: Dialect, label: str) -> str:
    """Write rows whatever is there: the writer has folded the registers that it read."""
    return f"{_by_key(database)}UNWIND $rows AS r MERGE (x:{label} {{_k: r._k}}) SET x = r RETURN count(*)"


def _relationships(database: Dialect, rows: str, status: str, result: str, type: str) -> str:
    differ, tagged = database.differ, "" if database.seeks_prefixes else " ON CREATE SET {0}._c = w.c"
    moves = f"r._d IS NULL AND ({differ.format('oa', 'a')} OR {differ.format('ob', 'b')})"
    return (
        f"UNWIND {rows} AS w MERGE (a:Entity {{_k: w.a}}){tagged.format('a')} "
        f"MERGE (b:Entity {{_k: w.b}}){tagged.format('b')} WITH a, b, w.p AS r "
        f"OPTIONAL MATCH (oa)-[x:`{type}` {{_k: r._k}}]->(ob){database.seek.format(type)} "
        f"WITH a, b, oa, ob, x, r, x._v AS old, {status}"
        f"{_when(f'st = {NEWER} AND {moves}', 'DELETE x')}"
        f"{_when(f'st = {NEW} OR (st = {NEWER} AND {moves})', f'CREATE (a)-[n:`{type}`]->(b) SET n = r')}"
        f"{_when(f'st = {NEWER} AND NOT ({moves})', 'SET x = r')}{result}"
    )


def upsert_relationships(database: Dialect, type: str, n: int = 0) -> str:
    """Write rows `{a, b, p}` of one type: found by key alone; newer ends remove the old edge; ends may still wait."""
    status = _STATUS.replace("x._v IS NULL", "x IS NULL")
    return _relationships(database, f"$rows{n}", status, _part(_COUNTS, n), type)


def create_relationships(database: Dialect, type: str, n: int = 0) -> str:
    """Write those of the rows under whose key there is no relationship, and whose ends are both there."""
    return (
        f"UNWIND $rows{n} AS w MATCH (a:Entity {{_k: w.a}}) MATCH (b:Entity {{_k: w.b}}) "
        "WITH a, b, w.p AS r "
        f"OPTIONAL MATCH (oa)-[x:`{type}` {{_k: r._k}}]->(ob){database.seek.format(type)} "
        "WITH a, b, x, r WHERE x IS NULL "
        f"CREATE (a)-[n:`{type}`]->(b) SET n = r{_part(_MADE, n)}"
    )


def look_at_relationships(database: Dialect, type: str, n: int = 0) -> str:
    """As `look_at_nodes`."""
    found = f"OPTIONAL MATCH ()-[x:`{type}` {{_k: r._k}}]->(){database.seek.format(type)}"
    return f"UNWIND $rows{n} AS w WITH w.p AS r {found}{_part(_SETTLED, n)}"


def replace_relationships(database: Dialect, type: str) -> str:
    """As `upsert_relationships`, whatever is there."""
    status = f"CASE WHEN x IS NULL THEN {NEW} ELSE {NEWER} END AS st"
    return _by_key(database) + _relationships(database, "$rows", status, " RETURN count(*)", type)


def read_nodes(label: str) -> str:
    """Whole property maps of nodes by key."""
    return f"UNWIND $keys AS k MATCH (x:{label} {{_k: k}}) RETURN properties(x)"


def read_relationships(type: str) -> str:
    """Whole property maps of relationships by key."""
    return f"UNWIND $keys AS k MATCH ()-[x:`{type}` {{_k: k}}]->() RETURN properties(x)"


def forget_nodes(database: Dialect, label: str) -> str:
    """Take registers away: an entity keeps its node, which may be an end; others go."""
    action = "SET x = {_k: k, _c: x._c}" if label == ENTITY else "DELETE x"
    return f"{_by_key(database)}UNWIND $keys AS k MATCH (x:{label} {{_k: k}}) {action} RETURN count(*)"


def forget_relationships(database: Dialect, type: str) -> str:
    """Take registers away, and their edges."""
    seek = database.seek.format(type)
    return f"{_by_key(database)}UNWIND $keys AS k MATCH ()-[x:`{type}` {{_k: k}}]->(){seek} DELETE x RETURN count(*)"


def forget_overlays(database: Dialect) -> str:
    """Take an overlay's registers below a version away, some at a time."""
    return (
        f"{guard(database)}MATCH (x:Overlay) WHERE x._o = $owner AND x._v < $version "
        "AND ($type = '' OR x._type = $type) WITH x LIMIT $limit DELETE x RETURN count(*)"
    )


RELATIONSHIP_TYPES = "CALL db.relationshipTypes() YIELD relationshipType RETURN relationshipType"


def _in_case(database: Dialect, x: str, label: str) -> str:
    return match_case(database, x, label, "$tag", "$case")


def scan_nodes(database: Dialect, label: str) -> str:
    """Property maps of a case's nodes that hold registers."""
    return f"{_in_case(database, 'x', label)} AND x._s IS NOT NULL RETURN properties(x)"


def scan_relationships(database: Dialect) -> str:
    """Types and property maps of a case's relationships."""
    return f"{_in_case(database, 'a', ENTITY)} MATCH (a)-[x]->() RETURN type(x), properties(x)"


def visible_nodes(database: Dialect, label: str) -> str:
    """Property maps of a case's visible nodes."""
    return f"{_in_case(database, 'x', label)} AND {VISIBLE_NODE.format('x')} RETURN properties(x)"


_VISIBLE_ENDS = f"{VISIBLE_NODE.format('a')} AND {VISIBLE_NODE.format('b')} AND {VISIBLE_EDGE.format('x')}"


def visible_relationships(database: Dialect) -> str:
    """Types and property maps of a case's visible relationships."""
    return f"{_in_case(database, 'a', ENTITY)} MATCH (a)-[x]->(b) WHERE {_VISIBLE_ENDS} RETURN type(x), properties(x)"


# Registers that a floor hides or that a priority may order anew: those of one source below a version, and every
# thing of several sources.
_TOUCHED = f"(x._s = '{SEVERAL}' OR (x._s = $source AND x._v < $version))"


def touched_nodes(database: Dialect, label: str) -> str:
    """Property maps of a case's nodes that a floor may hide."""
    return f"{_in_case(database, 'x', label)} AND {_TOUCHED} RETURN properties(x)"


def touched_relationships(database: Dialect) -> str:
    """Types and property maps of a case's relationships that a floor may hide."""
    return f"{_in_case(database, 'a', ENTITY)} MATCH (a)-[x]->() WHERE {_TOUCHED} RETURN type(x), properties(x)"
