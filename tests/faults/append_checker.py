"""Whether lists that only grow, and registers that only become newer, were seen so: elle's list-append, on our words.

    check_lists(appends, reads, final)      a key's list is the order in which the log holds what was appended to it
      unsent       a list holds what nobody appended, or only who failed (elle: G1a)
      doubled      a list holds a value twice (elle: duplicate-elements)
      order        two lists of a key, neither the beginning of the other (elle: incompatible-order)
      went back    a list is shorter than one that was read before it began
      reordered    A was acknowledged before B was invoked, and stands behind it (elle: a realtime cycle)
      lost         acknowledged, and not in the final list

    check_versions(appends, reads, final)   a key is a register; its list is what one observer saw of it over time
      unsent, went back, lost               as above, by the versions' own order

Source: elle.list-append (jepsen-io/elle; Kingsbury and Alvaro, "Elle", VLDB 2020). Lists give the order of appends
away, so that no search is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from tests.faults.operations import Ended, Operation

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class ListRead(NamedTuple, Generic[K, V]):
    """A key's list as somebody read it; reads stand in the order in which they ended."""

    key: K
    values: tuple[V, ...]
    observer: str = ""


class VersionRead(NamedTuple, Generic[K]):
    """A register's version as somebody saw it; an observer's reads stand in their order."""

    key: K
    version: str
    observer: str = ""


class Anomaly(NamedTuple):
    """One thing that must not be: its kind, of the module's list, the key, and what was seen."""

    kind: str
    key: Hashable
    seen: str


def check_lists(
    appends: Sequence[Operation[tuple[K, V]]], reads: Iterable[ListRead[K, V]], final: Mapping[K, Sequence[V]]
) -> list[Anomaly]:
    """Every anomaly of lists; reads are held against the final list of their key.

    Args:
        appends: elements are (key, value); a value may be appended again.
        final: each key's list when everything had come to rest.
    """
    may, found = _known(appends), list[Anomaly]()
    longest: dict[tuple[K, str], int] = defaultdict(int)
    for read in reads:
        found += _of_list(read.key, read.values, may)
        wanted, seen = tuple(final.get(read.key, ())), len(read.values)
        if read.values != wanted[:seen]:
            found.append(Anomaly("order", read.key, f"{read.values} was read, and {wanted} in the end"))
        before = longest[read.key, read.observer]
        if seen < before:
            found.append(Anomaly("went back", read.key, f"{seen} values after {before} by {read.observer}"))
        longest[read.key, read.observer] = max(seen, before)
    for key, values in final.items():
        found += _of_list(key, values, may)
    return found + _reordered(appends, final) + _lost(appends, final)


def check_versions(
    appends: Sequence[Operation[tuple[K, str]]], reads: Iterable[VersionRead[K]], final: Mapping[K, str]
) -> list[Anomaly]:
    """Every anomaly of registers. Versions are texts whose order is that of time.

    Args:
        final: each register's version when everything had come to rest.
    """
    may, found = _known(appends), list[Anomaly]()
    newest: dict[tuple[K, str], str] = {}
    for key, version, observer in reads:
        if version not in may.get(key, ()):
            found.append(Anomaly("unsent", key, version))
        before = newest.get((key, observer), "")
        if version < before:
            found.append(Anomaly("went back", key, f"{version} after {before} by {observer}"))
        newest[key, observer] = max(version, before)
    for (key, observer), version in newest.items():
        if version > final.get(key, ""):
            found.append(Anomaly("went back", key, f"{observer} saw {version}; in the end it is {final.get(key)}"))
    for operation in appends:
        if operation.ended is Ended.OK:
            found += [Anomaly("lost", k, f"{v} ({operation})") for k, v in operation.elements if v > final.get(k, "")]
    return found


def _known(appends: Iterable[Operation[tuple[K, V]]]) -> dict[K, set[V]]:
    may: dict[K, set[V]] = defaultdict(set)
    for operation in appends:
        if operation.ended is not Ended.FAIL:
            for key, value in operation.elements:
                may[key].add(value)
    return may


def _of_list(key: K, values: Sequence[V], may: Mapping[K, set[V]]) -> list[Anomaly]:
    unsent = [Anomaly("unsent", key, str(v)) for v in values if v not in may.get(key, ())]
    return unsent + ([Anomaly("doubled", key, str(values))] if len(set(values)) < len(values) else [])


def _reordered(appends: Sequence[Operation[tuple[K, V]]], final: Mapping[K, Sequence[V]]) -> list[Anomaly]:
    """By each value's first acknowledgement and its first invocation: who was acknowledged before stands before."""
    invoked: dict[tuple[K, V], int] = {}
    acknowledged: dict[tuple[K, V], int] = {}
    for operation in appends:
        for element in operation.elements:
            invoked[element] = min(operation.invoked, invoked.get(element, operation.invoked))
            if operation.ended is Ended.OK:
                at = operation.completed
                acknowledged[element] = min(at, acknowledged.get(element, at))
    found = []
    for key, values in final.items():
        latest: tuple[int, V] | None = None  # the one before here that was invoked last
        for value in values:
            at = acknowledged.get((key, value))
            if latest is not None and at is not None and at < latest[0]:
                found.append(Anomaly("reordered", key, f"{value} stands behind {latest[1]}, which was sent after it"))
            began = invoked.get((key, value), 0)
            if latest is None or began > latest[0]:
                latest = began, value
    return found


def _lost(appends: Iterable[Operation[tuple[K, V]]], final: Mapping[K, Sequence[V]]) -> list[Anomaly]:
    there = {key: set(values) for key, values in final.items()}
    return [
        Anomaly("lost", key, f"{value} ({operation})")
        for operation in appends
        if operation.ended is Ended.OK
        for key, value in operation.elements
        if value not in there.get(key, ())
    ]
