"""How far a replay of facts is: a file that one that was killed leaves for the next one of the same words."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from actors.chosen_facts import Chosen
from cluster.embedded.paths import private_folder
from cluster.stores.files import write_whole
from cluster.stores.log import EventLog

_NOTE_S = 1.0


@dataclass
class Place:
    """Where a replay stands.

    Args:
        ends: log partition → last entry that is read: the log's ends of when it began.
        at: log partition → last entry of which everything was appended.
        resumed: whether one of the same words was cut off before.
    """

    path: Path
    log: str
    ends: Mapping[int, int]
    at: dict[int, int]
    resumed: bool = False
    _noted_s: float = field(default_factory=time.monotonic)

    @classmethod
    def find(cls, folder: Path, chosen: Chosen, log: EventLog, *, afresh: bool = False) -> Place:
        """Where one of the same words was cut off, in the same log; else, or `afresh`, the beginning."""
        words = msgspec.json.encode(chosen.as_plain(), order="sorted")
        path = folder / f"{hashlib.sha256(words).hexdigest()[:32]}.json"
        identity, ends = log.identity, log.ends()
        name = f"{identity.name}/{identity.generation}"
        try:
            noted = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            noted = {}
        if afresh or noted.get("log") != name:
            return cls(path, name, ends, dict.fromkeys(ends, 0))
        return cls(path, name, _numbers(noted["ends"]), _numbers(noted["at"]), resumed=True)

    def left(self) -> int:
        """Entries that are still to be read."""
        return sum(end - self.at[p] for p, end in self.ends.items())

    def reach(self, partition: int, number: int, *, durably: bool) -> None:
        """Everything of a partition up to this entry was appended; noted once a second if it is to be kept."""
        self.at[partition] = number
        if durably and time.monotonic() - self._noted_s >= _NOTE_S:
            self._noted_s = time.monotonic()
            private_folder(self.path.parent)
            values = {"log": self.log, "ends": _texts(self.ends), "at": _texts(self.at)}
            write_whole(self.path, msgspec.json.encode(values))

    def forget(self) -> None:
        """It is done. Safe to call twice."""
        self.path.unlink(missing_ok=True)


def _numbers(values: Mapping[str, int]) -> dict[int, int]:
    return {int(p): int(number) for p, number in values.items()}


def _texts(values: Mapping[int, int]) -> dict[str, int]:
    return {str(p): number for p, number in values.items()}
