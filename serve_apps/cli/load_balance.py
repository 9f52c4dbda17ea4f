"""Loads against the log: is what they acknowledged there, once, and nothing else in their epochs?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster import versions
from serve_apps.cli.log_counts import Counted, Epoch

if TYPE_CHECKING:
    from cluster.stores.control import ControlStore
    from cluster.stores.control_dead_letters import LetterPlace
    from cluster.stores.control_loads import Load


@dataclass(frozen=True, slots=True)
class LoadBalance:
    """The loads of one epoch of a source, or of a whole source whose records bring their own positions.

    Args:
        epoch: None for a whole source.
        acked, dead: of all its loads together.
        logged: different records of the epoch in the log; of a whole source: all its records, however often.
        replayed: of `logged`, those at the place of a dead letter.
        letters: dead letters of the epoch.
        unexplained: records that are missing (less than 0) or too many; what an unfinished load may have appended and
            not acknowledged yet is neither.
    """

    tenant: str
    source: str
    epoch: int | None
    loads: int
    acked: int
    dead: int
    logged: int
    replayed: int
    letters: int
    unexplained: int

    @property
    def holds(self) -> bool:
        """Whether nothing is missing and nothing is too many."""
        return self.unexplained == 0


def load_balances(
    control: ControlStore, tenants: Iterable[str], counted: Mapping[Epoch, Counted], places: Sequence[LetterPlace],
    batch_records: int,
) -> Iterator[LoadBalance]:  # fmt: skip
    """Every source that has loads.

    Args:
        batch_records: how many records a load appends before it notes that they are acknowledged.
    """
    letters = Counter((place.tenant, place.source, versions.epoch_of(place.version)) for place in places)
    for tenant in tenants:
        modes = {source.name: source.positions for source in control.sources.list(tenant)}
        by_source: dict[str, list[Load]] = defaultdict(list)
        for load in control.loads.every(tenant):
            by_source[load.source].append(load)
        for source, loads in sorted(by_source.items()):
            if modes.get(source) == "own":
                yield whole_source(tenant, source, loads, counted)
                continue
            for epoch in sorted({load.epoch for load in loads}):
                same, key = [load for load in loads if load.epoch == epoch], (tenant, source, epoch)
                yield epoch_of_loads(key, same, counted.get(key, Counted()), letters[key], batch_records)


def epoch_of_loads(key: Epoch, loads: Sequence[Load], found: Counted, letters: int, batch_records: int) -> LoadBalance:
    """Loads of one content, whose records have the positions that reading gives them."""
    wrong = [finished(load, found, letters) for load in loads if load.state != "running"]
    if not wrong:
        wrong = [unfinished(load, found, letters, batch_records) for load in loads]
    return LoadBalance(
        *key, len(loads), sum(load.acked for load in loads), sum(load.dead for load in loads),
        found.distinct, found.at_letters, letters, max(wrong, key=abs),
    )  # fmt: skip


def finished(load: Load, found: Counted, letters: int) -> int:
    """Records of the load's epoch in the log beyond (less than 0: short of) what this reading tells.

    Every record of the content is in the log, either where no reading left a dead letter, or at the place of one. This
    reading left `load.dead` letters and took what stands at the places of the others, with other limits: one record
    each, or several (or none) where a mapping makes them of a row.
    """
    plain, read_again = found.distinct - found.at_letters, letters - load.dead
    least = most = read_again
    if read_again > 0 and not _is_one_each(load):
        least, most = 0, found.at_letters
    return -_outside(load.acked - plain, least, most)


def unfinished(load: Load, found: Counted, letters: int, batch_records: int) -> int:
    """The same for a load that was cut off: one batch of each of its ranges may be there, and not acknowledged yet."""
    on_its_way = batch_records * int(load.mapping.get("parts", 1))
    return _outside(found.distinct - found.at_letters + letters - load.acked - load.dead, 0, on_its_way)


def _outside(number: int, least: int, most: int) -> int:
    return number - most if number > most else min(0, number - least)


def _is_one_each(load: Load) -> bool:
    return load.mapping.get("mapping") is None and dict(load.mapping.get("row", {})).get("format") != "stix"


def whole_source(tenant: str, source: str, loads: Sequence[Load], counted: Mapping[Epoch, Counted]) -> LoadBalance:
    """Loads of a source whose records bring positions: they may repeat, and be of any epoch, so only a loss shows."""
    logged = sum(found.records for key, found in counted.items() if key[:2] == (tenant, source))
    acked, dead = sum(load.acked for load in loads), sum(load.dead for load in loads)
    return LoadBalance(tenant, source, None, len(loads), acked, dead, logged, 0, 0, min(0, logged - acked))
