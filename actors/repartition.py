"""The log gets another number of partitions: on an operator's word, at a start, before anybody appends.

    `log repartition N` notes the word → the next start with log.partitions N: writers pause → the map says N
        → `mending` opens a generation of the log that appends to N partitions, as the map says

Nothing is moved, and nobody has to catch up first. Entries stay where they are, and the map keeps every number that
the log has had: shards and lake read all partitions that may hold something for them, in any order, since versions
order. So a shard that comes back older, or empty, finds what it lacks on both sides of the change; and an appender that
does not know of it yet, which brokers cannot refuse, appends where it is read. Whoever calls this may be killed at any
moment: the map is one transaction, and where the log is not as the map says, the next start makes it so.
"""

from __future__ import annotations

import time

from actors.ownership import alone, paused
from actors.stack import Stack
from cluster.shard_map import ShardMap, repartition
from cluster.stores.control_audit import INSTALLATION
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import check_number
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.log")
ASKED, CHANGED = "log.repartition_asked", "log.repartitioned"
_SUBJECT = "log"


def ask(stack: Stack, partitions: int, actor: str) -> ShardMap:
    """An operator's word that the next start gives the log so many partitions; returns the map of now. Of several words
    the last one counts, for a change from the number of now alone. Safe to call twice.

    Raises:
        Unavailable: the system was never started.
        Rejected: the log has that number.
    """
    current = stack.current_map()
    repartition(current, partitions)
    detail = {"from": current.partitions, "to": partitions}
    stack.control.audit.append(INSTALLATION, actor, ASKED, _SUBJECT, time.time(), detail)
    return current


def change_number(stack: Stack, failpoint: Failpoint = no_failpoint) -> ShardMap | None:
    """Make the number of partitions that which the settings say; to be called before `mend`. Safe to call twice.

    Args:
        failpoint: called with `paused`, `published`.

    Returns:
        the map with the new number; None where nothing had to be done.

    Raises:
        Rejected: nobody has asked for it; the message says how to.
        Unavailable: a shard, whose writer has to pause, does not answer. Nothing has changed.
    """
    current, wanted = stack.control.shard_maps.current(), stack.settings.log.partitions
    if current is None or current.partitions == wanted:
        return None
    if not _asked(stack, current.partitions, wanted):
        check_number(current.partitions, wanted)
    with alone(stack, f"giving the log {wanted} partitions"), paused(stack, current.shards) as held:
        failpoint("paused")
        new = repartition(current, wanted)
        for shard_id in new.shards:  # the log is not trimmed of what a shard will read, before that has said so itself
            stack.control.positions.register(shard_id, new.partitions_of(shard_id), time.time())
        stack.control.shard_maps.publish(current.revision, new, time.time(), "intelgraph up", held)
    failpoint("published")
    detail = {"from": current.partitions, "to": wanted}
    stack.control.audit.append(INSTALLATION, "intelgraph up", CHANGED, _SUBJECT, time.time(), detail)
    LOG.warning("log_repartitioned", **detail)
    return new


def _asked(stack: Stack, now: int, wanted: int) -> bool:
    words = [entry.detail for entry in stack.control.audit.every(INSTALLATION) if entry.action == ASKED]
    return bool(words) and (words[-1].get("from"), words[-1].get("to")) == (now, wanted)
