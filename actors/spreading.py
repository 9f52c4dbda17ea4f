"""Over which hosts actors are spread: each host has as many as every other, or one more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple


class Move(NamedTuple):
    """An actor that goes to another host."""

    actor: str
    to: str


def move_of(homes: Mapping[str, str], hosts: Collection[str]) -> Move | None:
    """The move that makes things more even, if there is one: from the host with the most to that with the fewest.

    Args:
        homes: actor → host.
        hosts: those that are there; actors of others are being started elsewhere.
    """
    here = {actor: host for actor, host in homes.items() if host in hosts}
    if not here:
        return None
    number = Counter(here.values())
    most, least = max(hosts, key=lambda host: (number[host], host)), min(hosts, key=lambda host: (number[host], host))
    if number[most] - number[least] < 2:
        return None
    return Move(max(actor for actor, host in here.items() if host == most), least)
