"""Epochs of source ranges: the same range has the same one for ever, a new range a greater one than any before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from cluster.stores.control_sources import live_source_in, set_counters
from cluster.stores.control_tables import epochs


def newest_epoch(connection: Connection, tenants: Sequence[str], source: str) -> int:
    """The greatest epoch that any of the tenants has given a range of the source; raises as `epoch_of`."""
    return max(live_source_in(connection, tenant, source).next_epoch for tenant in tenants) - 1


def epoch_of(connection: Connection, tenants: Sequence[str], source: str, digest: str, now: float) -> int:
    """The epoch of a range, within a transaction: one for all tenants whose source it is.

    Args:
        digest: names the range; of a range that several tenants share, one that no other set of tenants has.

    Raises:
        NotFound, Forbidden: a tenant has no such source, or it is killed.
    """
    found = [live_source_in(connection, tenant, source) for tenant in tenants]
    same = (epochs.c.tenant == tenants[0], epochs.c.source == source, epochs.c.digest == digest)
    known = connection.execute(select(epochs.c.epoch).where(*same)).scalar_one_or_none()
    if known is not None:
        return int(known)
    epoch = max(one.next_epoch for one in found)
    for one in found:
        row = {"tenant": one.tenant, "source": source, "digest": digest, "epoch": epoch, "created": now}
        connection.execute(insert(epochs).values(**row))
        set_counters(connection, one, next_epoch=epoch + 1)
    return epoch
