"""Whose shard a Neo4j database is, and how long its readers may take what it says for current.

    claim   the database is empty, or this installation's shard of this name: nobody else's graph is written to
    extend  readers are let in for some seconds more, by the server's clock

A server that we do not start comes back without being asked: after a crash, or with a database of last week. Nothing in
its files says so, except that the time until which readers are let in is over. So it lets nobody in until a writer has
brought it to the log's ends under a new epoch.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cluster import dialect_shard
from cluster.errors import Rejected
from cluster.ids import BUCKETS
from cluster.stores import neo4j_schema
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.shard_owner import Owner, refuse_other

OLDEST = (5, 26)
"""What the templates want: a subquery that names its variables, `COUNT {}`. Versions count on from 5.26 to 2025.01."""
_VERSION = "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]"
_NUMBERS = re.compile(r"(\d+)\.(\d+)")
_OWNER = "MATCH (m:_Shard {_k: 'shard'}) RETURN m.log, m.name, m.raised, m.epoch"
_CLAIM = (
    "MERGE (m:_Shard {_k: 'shard'}) ON CREATE SET m.log = $log, m.name = $name, m.raised = 0, m.epoch = 0, "
    "m.owned = $none, m.lacking = $none WITH m WHERE m.log = $log AND m.name = $name RETURN m.name"
)
_EXTEND = (
    "MATCH (m:_Shard {_k: 'shard'}) SET m._held = true WITH m WHERE m.log = $log AND m.name = $name AND "
    "m.raised = $epoch AND m.epoch = $epoch AND m.until > timestamp() "
    "SET m.until = timestamp() + $milliseconds RETURN m.until"
)


class Standing(NamedTuple):
    """What a database says of itself.

    Args:
        owner: None where it is empty.
        raised, serving: its epoch, and that of the readers that are let in.
    """

    owner: Owner | None
    raised: int = 0
    serving: int = 0


def check_version(client: Neo4jClient) -> str:
    """The server's version. Raises Rejected where it is too old or none that is known."""
    version = str(client.read(_VERSION, {})[0][0])
    numbers = _NUMBERS.match(version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise Rejected(f"this is Neo4j {version}: a shard wants {OLDEST[0]}.{OLDEST[1]} or newer")
    return version


def standing(client: Neo4jClient) -> Standing:
    """Whose the database is.

    Raises:
        Rejected: it holds a graph that is no shard.
    """
    rows = client.read(_OWNER, {})
    if rows:
        log, name, raised, serving = rows[0]
        return Standing(Owner(str(log), str(name)), int(raised or 0), int(serving or 0))
    if client.read(dialect_shard.FOREIGN, {}):
        raise Rejected("the database holds a graph that is no shard's: give the shard an empty database of its own")
    return Standing(None)


def claim(client: Neo4jClient, owner: Owner, index_wait_s: float) -> None:
    """Make a database this shard's, with the constraints and indexes of nodes. Safe to call twice.

    Raises:
        Rejected: it is another's, of an unknown version, or the user may not make indexes; nothing has changed.
    """
    check_version(client)
    _refuse_other(standing(client).owner, owner)
    neo4j_schema.apply(client, neo4j_schema.LABELS, index_wait_s)
    # by compare-and-set: two installations may come at one moment
    if not client.write(_CLAIM, {**owner._asdict(), "none": "0" * BUCKETS}):
        _refuse_other(standing(client).owner, owner)


def _refuse_other(found: Owner | None, wanted: Owner) -> None:
    other = "empty it, or give the shard another"
    refuse_other("the database", found, wanted, own="one database is one shard", other=other)


def extend(client: Neo4jClient, owner: Owner, epoch: int, seconds: float) -> bool:
    """Let readers of this epoch in for so long from now; whether they were let in still. Safe to call twice.

    `serve` lets them in for a first time; once that is over, only another epoch does.
    """
    parameters = {**owner._asdict(), "epoch": epoch, "milliseconds": int(seconds * 1000)}
    return bool(client.write(_EXTEND, parameters))
