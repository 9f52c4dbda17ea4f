"""The state of a shard before its rebuild, noted in a file until it was compared with the state after it.

`rebuilds/SHARD.state`: a line of JSON that says of which log and at which positions it is, then the lines of
`shard_export.state_lines`. It holds data of every tenant of the shard, so its folder is its owner's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cluster.embedded.paths import private_folder
from cluster.fold import hash_lines
from cluster.stores.files import write_whole
from cluster.stores.graph import GraphShard
from cluster.stores.log import LogIdentity
from cluster.stores.shard_export import state_lines


class Difference(NamedTuple):
    """What is not as it was: the first thing in words, and how many there are."""

    text: str
    things: int


@dataclass(frozen=True)
class NotedState:
    """A shard's state as it was at some log positions (partition → entry)."""

    path: Path
    at: dict[int, int]

    @classmethod
    def find(
        cls, folder: Path, shard_id: str, identity: LogIdentity, partitions: Sequence[int]
    ) -> NotedState | None:  # fmt: skip
        """What a rebuild that was killed has noted; None where there is none, or of another log or map."""
        path = _path(folder, shard_id)
        try:
            with path.open("rb") as file:
                head = msgspec.json.decode(file.readline())
        except FileNotFoundError:
            return None
        at = {int(p): int(n) for p, n in head["at"].items()}
        mine = (head["log"], head["generation"]) == (identity.name, identity.generation) and set(at) == set(partitions)
        return cls(path, at) if mine else None

    def lines(self) -> Iterator[str]:
        """The lines, sorted."""
        with self.path.open() as file:
            file.readline()
            for line in file:
                yield line.removesuffix("\n")

    def compare(self, shard: GraphShard) -> tuple[int, str, Difference | None]:
        """(lines, their hash, what differs) of a shard that stands at the same positions."""
        after = state_lines([shard])
        digest = hash_lines(after)
        differs = None if hash_lines(self.lines()) == digest else first_difference(list(self.lines()), after)
        return len(after), digest, differs

    def keep(self) -> Path:
        """Set the file aside, so that a later rebuild is not compared with it; returns where it is."""
        return self.path.replace(self.path.with_suffix(".differs"))


def note(folder: Path, shard_id: str, identity: LogIdentity, at: Mapping[int, int], shard: GraphShard) -> NotedState:
    """Write down what a shard holds that stands at these positions; durable when this returns."""
    private_folder(folder)
    path = _path(folder, shard_id)
    head = {"log": identity.name, "generation": identity.generation, "at": {str(p): n for p, n in at.items()}}
    lines = [msgspec.json.encode(head).decode(), *state_lines([shard])]
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    return NotedState(path, dict(at))


def forget(folder: Path, shard_id: str) -> None:
    """Remove what was noted of a shard. Safe to call twice."""
    _path(folder, shard_id).unlink(missing_ok=True)


def _path(folder: Path, shard_id: str) -> Path:
    return folder / f"{shard_id}.state"


def first_difference(before: Sequence[str], after: Sequence[str]) -> Difference:
    """The least register, floor or priority that is not in both, or not with the same content."""
    had = {_key(line): line for line in set(before) - set(after)}
    has = {_key(line): line for line in set(after) - set(before)}
    keys = sorted(had.keys() | has.keys())
    return Difference(_told(keys[0], had.get(keys[0]), has.get(keys[0])), len(keys))


def _key(line: str) -> tuple[str, ...]:
    said = msgspec.json.decode(line)
    return tuple(str(said.get(name, "")) for name in ("tenant", "case", "kind", "type", "id", "source"))


def _told(key: tuple[str, ...], had: str | None, has: str | None) -> str:
    tenant, case, kind, type_, id, source = key
    what = f"{kind} {type_}/{id} of case {case!r}" if id else f"{kind} {type_}".rstrip()
    return f"{what}, source {source!r}, tenant {tenant!r}: it had {_version(had)}, and now has {_version(has)}"


def _version(line: str | None) -> str:
    if line is None:
        return "nothing"
    said: dict[str, Any] = msgspec.json.decode(line)
    return f"version {said.get('stamp') or said.get('version')}"
