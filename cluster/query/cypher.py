"""Questions to openCypher: fixed templates and parameters, in the part that FalkorDB and Neo4j share.

Nothing from outside is ever part of a template: which fragments it is made of depends on flags and on relationship
types that the shard itself has named (types.py), which are checked here once more. Every template
begins by matching the shard's own node with the epoch and the bucket that are meant, or with the owned flags that
`PROBE` told and the caller has checked; a shard that knows better returns no row. Where an empty answer is possible
otherwise, `PROBE` tells the two apart (see hot.py).

Shapes that matter in FalkorDB: after an `UNWIND` of keys, `WITH a` before the traversal, or the planner scans all
entities; a relationship that has a name is looked for in every type of the graph for each pair of neighbours, so many
pairs are first met without a name (`-[]-`), which costs the same however many types there are; no `<` or `>` on an
indexed text (`_type`, `_id` and `_Case.case` have no index); no `any`, `all` or list
comprehension over several rows, which sees nothing after a second `MATCH`; never a free shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster.databases import Dialect
from cluster.dialect import VISIBLE_EDGE, VISIBLE_NODE, match_case
from cluster.dialect_shard import LET_IN
from cluster.errors import Corrupt
from cluster.ids import CASE_TAG_BITS, bucket_of, case_key, case_tag, store_key
from cluster.query.ir import TEXT_PROPERTIES, CasesQuery, Detail, Direction, EntityQuery, NeighboursQuery, SearchQuery


class Statement(NamedTuple):
    """A template and its parameters."""

    template: str
    parameters: dict[str, Any]


PAIRS_MAX = 1_000
"""Up to so many pairs of entities are looked up instead of expanding one side."""

_SHARD = f"MATCH (m:_Shard {{_k: 'shard'}}) WHERE {LET_IN} "
_ONE = f"{_SHARD}AND m.epoch = $epoch AND substring(m.owned, $bucket, 1) = '1' "
_ALL = f"{_SHARD}AND m.epoch = $epoch AND m.owned = $owned "
PROBE = f"{_SHARD}RETURN m.epoch, m.owned"
_X, _A, _R = VISIBLE_NODE.format("x"), VISIBLE_NODE.format("a"), VISIBLE_EDGE.format("r")
_OUT, _IN, _BOTH = "-[{}{}]->", "<-[{}{}]-", "-[{}{}]-"
_ARROWS = {Direction.OUT: (_OUT, _IN), Direction.IN: (_IN, _OUT), Direction.ANY: (_BOTH, _BOTH)}
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_CONTAINS = " OR ".join(f"toLower(toStringOrNull(x.{name})) CONTAINS toLower($text)" for name in TEXT_PROPERTIES)
_OWNED = f"substring(m.owned, c._c / {1 << CASE_TAG_BITS}, 1) = '1'"

_ENTITY = f"{_ONE}OPTIONAL MATCH (x:Entity {{_k: $key}}) WHERE {_X} RETURN properties(x)"
_CLAIMS = (
    f"{_ONE}MATCH (x:Claim {{_e: $key}}) WHERE {_X} WITH x ORDER BY x._type, x._id LIMIT $limit RETURN properties(x)"
)
_OVERLAYS = (
    f"{_ONE}MATCH (x:Overlay {{_e: $key}}) WHERE {_X} AND x._type = $type AND x._id = $id "
    "WITH x ORDER BY x._s LIMIT $limit RETURN properties(x)"
)
_ENTITIES = f"{_ONE}UNWIND $keys AS k MATCH (x:Entity {{_k: k}}) WHERE {_X} RETURN properties(x)"


def count_types() -> Statement:
    """How many relationship types the shard's graph has ever had, of all tenants."""
    return Statement("CALL db.relationshipTypes() YIELD relationshipType RETURN count(relationshipType)", {})


def types_at(query: NeighboursQuery, epoch: int, keys: Sequence[str], dialect: Dialect) -> Statement:
    """Rows: the types of all relationships of some entities, each once.

    It asks for each type of the graph and each entity, whatever their degrees: for few entities that have many.
    """
    here = dialect.typed_degree.format("a", "[t]")
    template = (
        "CALL db.relationshipTypes() YIELD relationshipType WITH collect(relationshipType) AS names "
        f"{_ONE}WITH names UNWIND $keys AS k MATCH (a:Entity {{_k: k}}) WITH a, names UNWIND names AS t "
        f"WITH a, t WHERE {here} > 0 RETURN DISTINCT t"
    )
    return Statement(template, {**_one(query.tenant, query.case, epoch), "keys": list(keys)})


def typed_degrees(
    query: NeighboursQuery, epoch: int, keys: Sequence[str], types: Sequence[str], dialect: Dialect
) -> Statement:
    """Rows (key, degree) of some entities, counting relationships of these types."""
    degree = dialect.typed_degree.format("a", "$names")
    template = f"{_ONE}UNWIND $keys AS k MATCH (a:Entity {{_k: k}}) WITH a RETURN a._k, {degree}"
    head = _one(query.tenant, query.case, epoch)
    return Statement(template, {**head, "keys": list(keys), "names": list(types)})


def probe() -> Statement:
    """The shard's epoch of readers and its owned flags."""
    return Statement(PROBE, {})


def _one(tenant: str, case: str, epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "bucket": bucket_of(tenant, case)}


def entity(query: EntityQuery, epoch: int) -> Statement:
    """One row: the entity's property map, or null where there is none that is visible."""
    key = store_key(query.tenant, query.case, query.type, query.id)
    return Statement(_ENTITY, {**_one(query.tenant, query.case, epoch), "key": key})


def claims(query: EntityQuery, epoch: int, limit: int) -> Statement:
    """Rows: property maps of claims about the entity."""
    return Statement(_CLAIMS, {**entity(query, epoch).parameters, "limit": limit})


def overlays(query: EntityQuery, epoch: int, limit: int) -> Statement:
    """Rows: property maps of overlay values of the entity."""
    more = {"type": query.type, "id": query.id, "limit": limit}
    return Statement(_OVERLAYS, {**entity(query, epoch).parameters, **more})


def _named(types: Sequence[str]) -> str:
    """What stands in a relationship's brackets; nothing for any type."""
    for name in types:
        if not _TYPE.match(name):
            raise Corrupt(f"the shard has {name[:80]!r} as a relationship type; rebuild the shard")
    return ":" + "|".join(f"`{name}`" for name in types) if types else ""


def _filtered(query: NeighboursQuery, types: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The filter of an untyped hop, and its parameters; where types are named none is needed."""
    if types or not query.relationship_types:
        return "", {}
    return " AND type(r) IN $types", {"types": list(query.relationship_types)}


def frontier(
    query: NeighboursQuery,
    epoch: int,
    keys: Sequence[str],
    paths: int,
    dialect: Dialect,
    goes_on: bool,
    types: Sequence[str] = (),
    most: int | None = None,
) -> Statement:
    """One step from visible entities: rows (key, type, id, paths, degree), one a visible entity that is reached.

    Args:
        paths: at most so many relationships are followed.
        goes_on: whether another step follows; the degree is 0 otherwise.
        types: that are followed, as the shard has named them; empty: those of the question, or all.
        most: entities of a higher degree are not gone from; None: all are.
    """
    arrow = _ARROWS[query.direction][0].format("r", _named(types))
    typed, more = _filtered(query, types)
    degree = dialect.degree.format("x") if goes_on else "0"
    few = f" AND {dialect.degree.format('a')} <= $most" if most is not None else ""
    template = (
        f"{_ONE}UNWIND $keys AS k MATCH (a:Entity {{_k: k}}) WHERE {_A}{few} WITH a "
        f"MATCH (a){arrow}(x:Entity) WHERE {_R} AND {_X}{typed} WITH x LIMIT $paths "
        f"WITH x, count(*) AS paths RETURN x._k, x._type, x._id, paths, {degree}"
    )
    if most is not None:
        more["most"] = most
    return Statement(template, {**_one(query.tenant, query.case, epoch), "keys": list(keys), "paths": paths, **more})


def entities(query: NeighboursQuery, epoch: int, keys: Sequence[str]) -> Statement:
    """Rows: property maps of visible entities by key, in no order."""
    return Statement(_ENTITIES, {**_one(query.tenant, query.case, epoch), "keys": list(keys)})


def _shown(query: NeighboursQuery) -> str:
    full = ", properties(r)" if query.detail is Detail.FULL else ""
    return f"type(r), r._id{full} LIMIT $limit"


def links(
    query: NeighboursQuery, epoch: int, keys: Sequence[str], nearer: Sequence[str], limit: int, many_types: bool
) -> Statement:
    """Relationships between entities of a page and entities that are one step nearer.

    Few pairs are looked up one by one, which does not depend on anybody's degree; else the page's side is expanded.
    Rows: (key of the page's entity, key of the nearer one, whether it starts at the page's, type, id[, properties]).

    Args:
        many_types: the graph has many types: pairs are met without a name first.
    """
    arrow = _ARROWS[query.direction][1]
    # FalkorDB meets a pair once, Neo4j once for each of its relationships: hence DISTINCT
    unnamed, named = arrow.format("", ""), arrow.format("r", "")
    typed, more = _filtered(query, ())
    if len(keys) * len(nearer) <= PAIRS_MAX:
        ends = (
            "UNWIND $nearer AS n MATCH (y:Entity {_k: n}) WITH y UNWIND $keys AS k MATCH (x:Entity {_k: k}) WITH x, y "
        )
        met = f"MATCH (x){unnamed}(y) WITH DISTINCT x, y " if many_types else ""
        match = f"{ends}{met}MATCH (x){named}(y) WHERE {_R}{typed} "
    else:
        ends = "UNWIND $keys AS k MATCH (x:Entity {_k: k}) WITH x "
        if many_types:
            met = f"MATCH (x){unnamed}(y:Entity) WHERE y._k IN $nearer WITH DISTINCT x, y "
            match = f"{ends}{met}MATCH (x){named}(y) WHERE {_R}{typed} "
        else:
            match = f"{ends}MATCH (x){named}(y:Entity) WHERE {_R} AND y._k IN $nearer{typed} "
    result = f"RETURN x._k, y._k, startNode(r) = x, {_shown(query)}"
    parameters = {**_one(query.tenant, query.case, epoch), "keys": list(keys), "nearer": list(nearer), "limit": limit}
    return Statement(f"{_ONE}{match}{result}", {**parameters, **more})


def loops(query: NeighboursQuery, epoch: int, keys: Sequence[str], limit: int) -> Statement:
    """Relationships of visible entities with themselves: rows as those of `links`, each once."""
    typed, more = _filtered(query, ())
    template = (
        f"{_ONE}UNWIND $keys AS k MATCH (x:Entity {{_k: k}}) WHERE {_X} WITH x MATCH (x)-[]->(x) WITH DISTINCT x "
        f"MATCH (x)-[r]->(x) WHERE {_R}{typed} RETURN x._k AS far, x._k AS near, true, {_shown(query)}"
    )
    return Statement(template, {**_one(query.tenant, query.case, epoch), "keys": list(keys), "limit": limit, **more})


def _conditions(query: SearchQuery) -> tuple[str, dict[str, Any]]:
    text = ""
    parameters: dict[str, Any] = {}
    if query.types:
        text += " AND x._type IN $types"
        parameters["types"] = list(query.types)
    if query.text:
        text += f" AND ({_CONTAINS})"
        parameters["text"] = query.text
    for number, wanted in enumerate(query.filters):
        text += f" AND x[$name{number}] IN $values{number}"
        parameters |= {f"name{number}": wanted.name, f"values{number}": list(wanted.values)}
    return text, parameters


_AFTER = "(x._type > $after_type OR (x._type = $after_type AND x._id > $after_id))"


def search_case(query: SearchQuery, case: str, epoch: int, dialect: Dialect) -> Statement:
    """Entities of one case that fit, ordered by (type, id), one more than the page: rows (case, property map)."""
    conditions, parameters = _conditions(query)
    if query.after is not None:
        conditions += f" AND {_AFTER}"
        parameters |= {"after_type": query.after[1], "after_id": query.after[2]}
    template = (
        f"{_ONE}{match_case(dialect, 'x', 'Entity', '$tag', '$prefix')} AND {_X}{conditions} "
        "WITH x ORDER BY x._type, x._id LIMIT $limit RETURN $case, properties(x)"
    )
    parameters |= {"tag": case_tag(query.tenant, case), "prefix": case_key(query.tenant, case), "case": case}
    return Statement(template, {**_one(query.tenant, case, epoch), **parameters, "limit": query.limit + 1})


def _seen(dialect: Dialect, label: str) -> str:
    """Finds what is visible of a label in the case `c`."""
    return f"{match_case(dialect, 'x', label, 'c._c', 'c._k')} AND {_X}"


def search_tenant(query: SearchQuery, epoch: int, owned: str, dialect: Dialect) -> Statement:
    """As `search_case`, over all cases of the tenant in the shard, whose owned buckets are as `probe` has told."""
    conditions, parameters = _conditions(query)
    from_case = ""
    if query.after is not None:
        from_case = " AND c.case >= $after_case"
        conditions += f" AND (c.case > $after_case OR {_AFTER})"
        case, type_, id_ = query.after
        parameters |= {"after_case": case, "after_type": type_, "after_id": id_}
    template = (
        f"{_ALL}WITH m MATCH (c:_Case {{tenant: $tenant}}) WHERE {_OWNED}{from_case} WITH c "
        f"{_seen(dialect, 'Entity')}{conditions} "
        "WITH c, x ORDER BY c.case, x._type, x._id LIMIT $limit RETURN c.case, properties(x)"
    )
    head = {"epoch": epoch, "owned": owned, "tenant": query.tenant}
    return Statement(template, {**head, **parameters, "limit": query.limit + 1})


def cases(query: CasesQuery, epoch: int, owned: str, after: str, limit: int, dialect: Dialect) -> Statement:
    """Cases of the tenant in the buckets that the shard owns, by name.

    Rows: (case, whether an entity or a claim of it is visible). The first that is seen ends the look into a case.
    """
    entity = f"OPTIONAL {_seen(dialect, 'Entity')} RETURN x AS e LIMIT 1"
    claim = f"OPTIONAL {_seen(dialect, 'Claim')} AND e IS NULL RETURN x AS f LIMIT 1"
    template = (
        f"{_ALL}WITH m MATCH (c:_Case {{tenant: $tenant}}) WHERE {_OWNED} AND c.case > $after "
        f"WITH c ORDER BY c.case LIMIT $limit {dialect.per_row.format('c', entity)} "
        f"{dialect.per_row.format('c, e', claim)} RETURN c.case, e IS NOT NULL OR f IS NOT NULL"
    )
    parameters = {"tenant": query.tenant, "after": after, "limit": limit}
    return Statement(template, {"epoch": epoch, "owned": owned, **parameters})
