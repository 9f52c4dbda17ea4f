"""Which database a shard is in, by the scheme of its address: FalkorDB (`unix`, `falkor`, `redis`) or Neo4j.

Neo4j's modules are imported when the first such shard is opened: its driver takes longer to import than all the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from cluster.config import ShardSettings
from cluster.errors import Rejected
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.shard import StoredShard

if TYPE_CHECKING:
    from cluster.stores.neo4j_client import Neo4jClient


def is_neo4j(uri: str) -> bool:
    """Whether an address is that of a Neo4j server."""
    return urlsplit(uri).scheme.partition("+")[0] in ("bolt", "neo4j")


def kind_of(uri: str) -> Literal["neo4j", "embedded"]:
    """What a shard at this address is called where shards are listed."""
    return "neo4j" if is_neo4j(uri) else "embedded"


def shown_address(uri: str) -> str:
    """A shard's address as it may be shown: without a user and a password that somebody has put into it."""
    scheme, separator, rest = uri.partition("://")
    return uri if scheme == "unix" else f"{scheme}{separator}{rest.rpartition('@')[2]}"


def open_client(
    uri: str, settings: ShardSettings, application: SecretStr, timeout_s: float
) -> FalkorClient | Neo4jClient:
    """A connection to a shard; opened when it is first used.

    Args:
        application: password of this installation's own servers. Neo4j's is in the file that the settings name.

    Raises:
        Rejected: the address is of no known kind, or the password's file cannot be read.
    """
    if not is_neo4j(uri):
        return FalkorClient(uri, application, timeout_s=timeout_s)
    from cluster.stores.neo4j_client import Neo4jClient

    password = _password_in(settings.neo4j_password_file)
    return Neo4jClient(
        uri, settings.neo4j_user, password, timeout_s, settings.neo4j_database, settings.neo4j_ca_file,
        settings.neo4j_lanes,
    )  # fmt: skip


def open_shard(client: FalkorClient | Neo4jClient, settings: ShardSettings) -> StoredShard:
    """A shard over a connection of its own."""
    if isinstance(client, FalkorClient):
        return FalkorShard(client, settings.write_rows)
    from cluster.stores.neo4j_shard import Neo4jShard

    return Neo4jShard(client, settings.write_rows, settings.index_wait_s)


def _password_in(path: Path | None) -> SecretStr | None:
    if path is None:
        return None
    try:
        return SecretStr(path.read_text().rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Rejected(f"shards.neo4j_password_file, {path}, cannot be read: {reason}") from error
