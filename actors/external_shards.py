"""Shards in databases that we do not start: taken over, and watched for having come back without us.

claim (the database is empty or this shard's) → register → the supervisor starts its writer, as of any shard
keeper, in the node: readers are let in for some seconds more → what is committed is reported as durable
                     → where it came back older, empty or after a pause: a new epoch, which its writer has to bring
                       to the log's ends before anybody reads
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from actors.checkpoints import CheckpointRounds
from actors.retrying import Backoff
from actors.stack import Stack
from cluster.errors import IntelGraphError, Rejected, Retryable, Unavailable
from cluster.stores.open_shard import is_neo4j
from cluster.stores.shard_owner import Owner
from cluster.telemetry.logs import Log

if TYPE_CHECKING:
    from cluster.stores.neo4j_client import Neo4jClient

LOG = Log("intelgraph.external")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_EMBEDDED = re.compile(r"shard-\d+\Z")
_ANSWER_S = 5.0
_FIRST_START = Backoff(0.5, 5.0, deadline_s=60.0)
"""Servers that were started together with the system are waited for."""
_OVER, _AWAY, _RAISED, _SERVING = -1, 0, 1, 2
"""How far a shard is with its epoch: the time of its readers is over, it does not know it, its writer has taken it
over, readers are let in."""


def came_back(before: tuple[int, int], epoch: int, phase: int) -> bool:
    """Whether a shard is less far than it was seen under this same epoch: its server has restarted or was restored.

    Args:
        before: (epoch, phase) when it was last looked at.
    """
    return phase == _OVER or (before[0] == epoch and phase < before[1])


def shard_name(stack: Stack, uri: str, wanted: str | None) -> str:
    """The id of the shard at an address: that under which it is known, the wanted one, or the next `neo4j-N`.

    Raises:
        Rejected: the id is no name, or is that of an embedded shard, or the address is known under another.
    """
    if not is_neo4j(uri):
        raise Rejected("an external shard's address is bolt://, bolt+s://, neo4j:// or neo4j+s://host:port")
    known = {s.id: s.uri for s in stack.control.shards.list()}
    at = next((id for id, address in known.items() if address == uri), None)
    if at is not None and wanted not in (None, at):
        raise Rejected(f"this address is shard {at} already: one database is one shard")
    number = next(n for n in range(len(known) + 1) if f"neo4j-{n}" not in known)
    name = at or wanted or f"neo4j-{number}"
    if not _NAME.match(name) or _EMBEDDED.match(name):
        raise Rejected("a shard's id is a-z, 0-9 and -, and begins with a letter; shard-N are the embedded ones")
    return name


def claim_own(stack: Stack, shard_id: str) -> None:
    """Claim the database of a registered shard again, if it is an external one: by now it may be empty, or another's.

    Raises as `claim`.
    """
    uri = stack.control.shards.get(shard_id).uri
    if is_neo4j(uri):
        bound = stack.control.positions.newest_log()  # the log itself may be opened by nobody yet
        if bound is None:
            raise Unavailable("there is no event log yet: start the system with `intelgraph up`")
        claim(stack, shard_id, uri, bound.name)


def claim(stack: Stack, shard_id: str, uri: str, log_name: str) -> None:
    """Check a database and make it this shard's. Safe to call twice.

    Raises:
        Rejected: user or password are wrong, or it is not fit or not free; see `neo4j_tenure.claim`.
        Unavailable: it does not answer.
    """
    from cluster.stores import neo4j_tenure

    with closing(_client(stack, uri)) as client:
        neo4j_tenure.claim(client, Owner(log_name, shard_id), stack.settings.shards.index_wait_s)


def register(stack: Stack, shard_id: str, uri: str) -> None:
    """Claim a database and make it known, active; where it was known at another address, its readers and writer go to
    this one. Safe to call twice. Raises as `claim`."""
    with closing(stack.open_log()) as log:
        claim(stack, shard_id, uri, log.identity.name)
    shards = stack.control.shards
    moved = any(s.id == shard_id and s.uri != uri for s in shards.list())
    registered = shards.register(shard_id, uri, time.time())
    if registered.state == "draining":
        shards.set_state(shard_id, "draining", "active", time.time())
    if moved:
        shards.raise_epoch(shard_id)


def register_first(stack: Stack) -> list[str]:
    """Register the external shards that the settings name, where there is no map yet; their ids. Safe to call twice.

    One that was started a moment ago is waited for. Raises as `claim`.
    """
    if stack.control.shard_maps.current() is not None:
        return []
    named = [(f"neo4j-{number}", uri) for number, uri in enumerate(stack.settings.shards.external)]
    for shard_id, uri in named:
        name = shard_name(stack, uri, shard_id)
        _FIRST_START.call(partial(register, stack, name, uri), partial(_waited_for, name))
    return [shard_id for shard_id, _ in named]


def _waited_for(shard_id: str, error: Retryable) -> None:
    LOG.warning("external_shard_waited_for", shard=shard_id, reason=str(error))


def _client(stack: Stack, uri: str) -> Neo4jClient:
    from cluster.stores.neo4j_client import Neo4jClient
    from cluster.stores.open_shard import open_client

    client = open_client(uri, stack.settings.shards, stack.password, _ANSWER_S)
    if not isinstance(client, Neo4jClient):
        raise TypeError(f"{type(client).__name__} is no external shard's")
    return client


class Keeper:
    """Looks at one external shard several times within a lease. For one thread; holds nothing that matters.

    Args:
        log_name: of the installation's event log.
    """

    def __init__(self, stack: Stack, shard_id: str, log_name: str) -> None:
        self._stack, self._shard_id, self._log_name = stack, shard_id, log_name
        self._rounds = CheckpointRounds(shard_id, stack)
        self._client: Neo4jClient | None = None
        self._uri = ""
        self._seen = (-1, _AWAY)
        self._noted = 0.0
        self._failing = False

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set."""
        every_s = min(1.0, self._stack.settings.shards.lease_s / 5)
        while not stopping.wait(every_s):
            try:
                self.turn()
                self._failing = False
            except IntelGraphError as error:
                if not self._failing:  # once, not every second
                    LOG.warning("external_shard_not_kept", shard=self._shard_id, reason=str(error))
                self._failing = True
            except Exception as error:  # a thread that dies lets nobody in ever after: say it, look again
                LOG.error("external_shard_not_kept", error, shard=self._shard_id)
        self.close()

    def turn(self) -> None:
        """One look. Safe to call at any time.

        Raises:
            Unavailable: the shard does not answer. Rejected: its database is another's by now.
        """
        if self._shard_id not in self._stack.current_map().shards:
            if self._noted:  # it was drained, perhaps while it was noted: it holds the log no longer
                self._stack.control.positions.remove(self._shard_id)
                self._noted = 0.0
            return
        registered = self._stack.control.shards.get(self._shard_id)
        phase = self._phase(registered.uri, registered.epoch)
        if came_back(self._seen, registered.epoch, phase):
            epoch = self._stack.control.shards.raise_epoch(self._shard_id)
            LOG.warning("external_shard_came_back", shard=self._shard_id, epoch=epoch)
            return
        self._seen = (registered.epoch, phase)
        if phase != _AWAY and time.monotonic() - self._noted >= self._stack.settings.shards.checkpoint_s:
            self._rounds.turn(None)
            self._noted = time.monotonic()

    def _phase(self, uri: str, epoch: int) -> int:
        from cluster.stores import neo4j_tenure

        owner = Owner(self._log_name, self._shard_id)
        if self._client is None or uri != self._uri:
            self._close_client()
            self._client, self._uri = _client(self._stack, uri), uri
        if neo4j_tenure.extend(self._client, owner, epoch, self._stack.settings.shards.lease_s):
            return _SERVING
        found = neo4j_tenure.standing(self._client)
        if found.owner not in (None, owner):
            raise Rejected(f"{self._shard_id}: its database is by now another shard's; see `intelgraph shards list`")
        if found.serving == epoch:  # let in since that question, or for too long
            again = neo4j_tenure.extend(self._client, owner, epoch, self._stack.settings.shards.lease_s)
            return _SERVING if again else _OVER
        return _RAISED if found.raised >= epoch else _AWAY

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._close_client()
        self._rounds.close()
