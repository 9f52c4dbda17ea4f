"""What a shard knows of itself, and the openCypher that keeps it: epoch, owned buckets, leases, cursors, counts, names
of cases, floors and priorities. Layout: dialect.py.
"""

from __future__ import annotations

from cluster.databases import Dialect
from cluster.dialect import guard, match_case

_RAISED = "MATCH (m:_Shard {_k: 'shard'}) WHERE m.raised = $epoch "
_ADVANCE = (
    f"{_RAISED}UNWIND $moves AS v "
    "MATCH (c:_Cursor {_k: v.partition}) WHERE c.lease = $lease AND c.at = v.from "
    "WITH count(c) AS ready WHERE ready = $expected UNWIND $moves AS v MATCH (c:_Cursor {_k: v.partition}) "
    "SET c.at = v.to, c.records = c.records + v.records, c.applied = c.applied + v.applied, "
    "c.duplicate = c.duplicate + v.duplicate, c.stale = c.stale + v.stale WITH count(c) AS moved "
    "WHERE moved = $expected "
    "UNWIND $counts AS n MERGE (k:_Count {_k: n.key}) SET k.tenant = n.tenant, k.source = n.source, k.epoch = n.epoch, "
    "k.applied = coalesce(k.applied, 0) + n.applied, k.duplicate = coalesce(k.duplicate, 0) + n.duplicate, "
    "k.stale = coalesce(k.stale, 0) + n.stale RETURN max(moved)"
)


def advance(database: Dialect) -> str:
    """Move cursors, all by compare-and-set or none, and add to what each source's epoch counts.

    `counts` must not be empty. A writer that was refused moves nothing and counts nothing: the answer is null. An
    aggregate over no row is a row, hence the second comparison.
    """
    return database.planned_once + database.hold + _ADVANCE


COUNTS = "MATCH (k:_Count) RETURN k.tenant, k.source, k.epoch, k.applied, k.duplicate, k.stale"


def raise_epoch(database: Dialect) -> str:
    """A new epoch: writers of older ones are refused from here on, readers until `serve`."""
    return (
        f"{database.hold_all}MERGE (m:_Shard {{_k: 'shard'}}) WITH m WHERE coalesce(m.raised, 0) < $epoch "
        "SET m.raised = $epoch, m.epoch = 0, m.until = null, m.owned = coalesce(m.owned, $none), "
        "m.lacking = coalesce(m.lacking, $none) RETURN m.owned"
    )


def note_owner(database: Dialect) -> str:
    """Note which log an embedded shard is filled from, and its id, where nothing is noted; returns what is noted."""
    return (
        f"{database.hold_all}MATCH (m:_Shard {{_k: 'shard'}}) SET m.of_log = coalesce(m.of_log, $log), "
        "m.of_shard = coalesce(m.of_shard, $name) RETURN m.of_log, m.of_shard"
    )


OWNER = "MATCH (m:_Shard {_k: 'shard'}) RETURN m.of_log, m.of_shard, m.raised"
"""What `note_owner` noted, null where it never did; and the epoch."""
FOREIGN = "MATCH (n) WHERE NOT n:_Shard RETURN 1 LIMIT 1"
"""Whether a database without an owner holds something: somebody else's graph."""

FIRST_LET_IN_MS = 10_000
"""So long readers of a database with an owner are let in before somebody has to extend it: see neo4j_tenure.py."""


def serve(database: Dialect) -> str:
    """Let readers of this epoch in; those of a database with an owner for some seconds, by its own clock."""
    until = f"CASE WHEN m.log IS NULL THEN null ELSE timestamp() + {FIRST_LET_IN_MS} END"
    return f"{database.hold_all}{_RAISED}SET m.epoch = $epoch, m.until = {until} RETURN m.epoch"


def own(database: Dialect) -> str:
    """Which buckets are served, and of which a part only may be there."""
    return (
        f"{database.hold_all}{_RAISED}OPTIONAL MATCH (l:_Cursor) WHERE l._k IN $partitions AND l.lease = $lease "
        "WITH m, count(l) AS held WHERE held = $held SET m.owned = $owned, m.owns = $owns, m.lacking = $lacking "
        "RETURN m.owned"
    )


def lease(database: Dialect) -> str:
    """Take cursors over from writers of earlier leases."""
    return (
        f"{database.hold_all}{_RAISED}UNWIND $partitions AS p MERGE (c:_Cursor {{_k: p}}) "
        "WITH c WHERE coalesce(c.lease, 0) < $lease SET c.lease = $lease, c.at = coalesce(c.at, 0), "
        "c.records = coalesce(c.records, 0), c.applied = coalesce(c.applied, 0), "
        "c.duplicate = coalesce(c.duplicate, 0), c.stale = coalesce(c.stale, 0) RETURN count(c)"
    )


LET_IN = "(m.until IS NULL OR m.until > timestamp())"
"""Whether readers are let in still: a server that we do not start lets them in for some time only."""
SHARD = (
    f"MATCH (m:_Shard {{_k: 'shard'}}) RETURN m.raised, CASE WHEN {LET_IN} THEN m.epoch ELSE 0 END, m.owned, "
    "coalesce(m.lacking, '')"
)
CURSORS = "MATCH (c:_Cursor) RETURN c._k, c.at, c.lease, c.records, c.applied, c.duplicate, c.stale"
CASES = "MATCH (c:_Case) RETURN c.tenant, c.case"


def see_cases(database: Dialect) -> str:
    """Keep names of cases."""
    merged = "UNWIND $rows AS r MERGE (c:_Case {_k: r._k}) SET c = r RETURN count(*)"
    return database.planned_once + guard(database) + merged


FLOORS = "MATCH (f:_Floor) RETURN f.tenant, f.source, f.type, f.version, f.done"
PRIORITIES = "MATCH (p:_Priority) RETURN p.tenant, p.source, p.stamp, p.priority, p.done"


def set_floor(database: Dialect) -> str:
    """Keep a floor, and whether everything below it is hidden."""
    return (
        f"{guard(database)}MERGE (f:_Floor {{_k: $key}}) SET f.tenant = $tenant, f.source = $source, "
        "f.type = $type, f.version = $version, f.done = $done RETURN count(*)"
    )


def set_priority(database: Dialect) -> str:
    """Keep a priority, and whether everything that it orders is merged anew."""
    return (
        f"{guard(database)}MERGE (p:_Priority {{_k: $key}}) SET p.tenant = $tenant, p.source = $source, "
        "p.stamp = $stamp, p.priority = $priority, p.done = $done RETURN count(*)"
    )


_IN_BUCKET = "{0}._c >= $low AND {0}._c < $high"


def drop_bucket(database: Dialect, label: str) -> str:
    """Delete nodes of a bucket, with their relationships, some at a time; names of its cases last."""
    of_bucket = f"MATCH (x:{label}) WHERE {_IN_BUCKET.format('x')} "
    if database.seeks_prefixes and label != "_Case":
        cases = f"MATCH (c:_Case) USING INDEX SEEK c:_Case(_c) WHERE {_IN_BUCKET.format('c')} "
        of_bucket = f"{cases}{match_case(database, 'x', label, 'c._c', 'c._k')} "
    return f"{database.hold_all}{_RAISED}{of_bucket}WITH x LIMIT $limit DETACH DELETE x RETURN count(*)"


KNOWN_LABELS = ("_Case", "_Floor", "_Priority")
"""What a shard knows of its content, beside the content: gone with it."""


def drop_all(database: Dialect, label: str) -> str:
    """Delete nodes, with their relationships, some at a time. A writer that was refused deletes none, and sees 0."""
    return f"{guard(database)}MATCH (x:{label}) WITH x LIMIT $limit DETACH DELETE x RETURN count(*)"


def begin_again(database: Dialect) -> str:
    """Set every cursor to the log's beginning, whoever holds it, and forget what was counted: all of it, or nothing."""
    return (
        f"{guard(database)}MATCH (c:_Cursor) SET c.at = 0, c.lease = 0, c.records = 0, c.applied = 0, c.duplicate = 0, "
        "c.stale = 0 WITH count(c) AS cursors OPTIONAL MATCH (k:_Count) DELETE k RETURN max(cursors)"
    )
