"""Whether lake and log together reach back to the beginning: what is emptied can be filled again only then."""

from __future__ import annotations

from collections.abc import Sequence

from actors.stack import Stack
from cluster.errors import Corrupt, Rejected
from cluster.model import Kind
from cluster.stores.lake_wanted import Wanted
from cluster.stores.log import EventLog


def check_reach(stack: Stack, log: EventLog, partitions: Sequence[int]) -> None:
    """Nothing, if lake and log together hold every entry of these log partitions.

    Raises:
        Rejected: they do not. Corrupt: the lake lacks records, or a file, that it says it has.
    """
    trimmed = {p: begin - 1 for p, begin in log.begins().items() if p in partitions and begin > 1}
    if not trimmed:
        return
    why = f"log partition {min(trimmed)} begins at entry {trimmed[min(trimmed)] + 1}"
    lake = stack.lake_address.find()
    if lake is None:
        raise Rejected(f"{why} and there is no lake that has what was before: emptied, the shard would stay so")
    with lake:
        version = lake.version()
        at = lake.positions(version)
        if at.log != log.identity.name:
            raise Rejected(f"{why}, and the lake was filled from another log: emptied, the shard would stay so")
        for partition, least in sorted(trimmed.items()):
            if at.of(partition).number < least:
                raise Rejected(
                    f"log partition {partition} begins at entry {least + 1}, but the lake ends at"
                    f" {at.of(partition).number}: what is between is in the shard alone, so it cannot be rebuilt"
                )
            found = len(lake.events(Wanted(partition=partition, most_kind=int(Kind.CLAIM)), ["kind"], version))
            if found != at.of(partition).records:
                raise Corrupt(
                    f"lake: its files hold {found:,} records of log partition {partition}, not the"
                    f" {at.of(partition).records:,} that were committed; restore them before anything is rebuilt"
                )
