"""A soak: events at a share of the peak for minutes, a random fault every half minute.

    python -m tests.faults.soak --minutes 10 --share 0.7                    # on the embedded parts
    python -m tests.faults.soak --minutes 10 --stack production             # Kafka, Neo4j, Redis, Ray

    warm up → measure the peak → send, and hurt something every 30 s → wait until all is applied
    must hold: memory is flat, lag is below 5 s again before the next fault, the books balance, the fold's hash

What is sent speaks of a fixed number of things, so that what has to be kept is bounded; the log is trimmed to the lake.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

from cluster.errors import IntelGraphError
from cluster.fold import Fold, hash_lines
from serve_apps.cli.conservation import audit
from tests.faults.harness import Installation, wait_until
from tests.faults.memory import slope_per_minute
from tests.faults.recording import HEALED_S, as_lines, counted
from tests.faults.report import Row, keep, write
from tests.faults.sender import Sender
from tests.faults.stacks import opened

EVERY_S, WARM_S, PEAK_S = 30.0, 10.0, 10.0
FLAT_SHARE = 0.10
"""So much more memory than before is flat: pages that allocators keep come and go."""


@dataclass
class Soaked:
    """What a soak found. `faults` are (what, seconds until lag was below the bound or the next was due, lag then)."""

    peak_per_s: float
    rate_per_s: float
    sent: int = 0
    unknown: int = 0
    faults: list[tuple[str, float, float]] = field(default_factory=list)
    memory_first_mib: float = 0.0
    memory_last_mib: float = 0.0
    memory_mib_per_minute: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        first, last = f"{self.memory_first_mib:,.0f}", f"{self.memory_last_mib:,.0f}"
        right = "lag came back after each, memory is flat, the books balance, and the hash is the fold's"
        return [
            f"peak {self.peak_per_s:,.0f} events/s; sent {self.sent:,} at {self.rate_per_s:,.0f}/s",
            f"outcome unknown, and sent again: {self.unknown:,}",
            f"memory {first} MiB in the second quarter, {last} MiB in the last",
            f"memory {self.memory_mib_per_minute:+.1f} MiB a minute over the second half",
            f"{len(self.faults)} faults",
            *(f"  {what}: lag {lag_s:.1f} s after {seconds:.1f} s" for what, seconds, lag_s in self.faults),
            *(self.wrong or [right]),
        ]


def soak(
    system: Installation, minutes: float, share: float, seed: int, every_s: float = EVERY_S,
    peak_s: float = PEAK_S, tell: Callable[[str], None] = print,
) -> Soaked:  # fmt: skip
    """Runs one on an installation that was started, with its lake."""
    system.recording.memory, system.recording.looks = system.memory_bytes, True
    system.recording.start()
    with _Keeping(system):
        warm = _peak(system, seed, WARM_S, 1)
        peak = _peak(system, seed, peak_s, warm.next_number)
        found = Soaked(peak.per_s, peak.per_s * share)
        tell(f"peak {peak.per_s:,.0f} events/s; sending {found.rate_per_s:,.0f}/s for {minutes:g} minutes")
        since = system.recording.points[-1].at_s if system.recording.points else 0.0
        sender = Sender(system, seed + 1, found.rate_per_s, peak.next_number).start()
        try:
            _hurt(system, found, random.Random(seed), 60 * minutes, every_s, tell)
        finally:
            sender.stop()
    found.sent, found.unknown = sender.sent, sender.unknown
    _weigh(system, found, since)
    try:
        system.settle(deadline_s=300.0)
    except AssertionError as error:
        found.wrong.append(f"what was sent is not applied: {error}")
    else:
        _balance(system, found, warm.sent + peak.sent + sender.sent, warm.unknown + peak.unknown + sender.unknown)
    return found


def _hurt(
    system: Installation, found: Soaked, rnd: random.Random, seconds: float, every_s: float,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    """One fault after the other, and how long lag took to be below the bound again after each."""
    began, faults = time.monotonic(), _shuffled(rnd, system.faults())
    while time.monotonic() + every_s <= began + seconds:
        next_at = time.monotonic() + every_s
        what, hurt = next(faults)
        hurt(rnd)
        hurt_at, looks = time.monotonic(), len(system.recording.points)
        with suppress(AssertionError):
            wait_until(lambda looks=looks: _lag_s(system, looks) < HEALED_S, max(1.0, next_at - hurt_at))
        lag_s = _lag_s(system, looks)
        found.faults.append((what, time.monotonic() - hurt_at, lag_s))
        tell(f"{time.monotonic() - began:5.0f} s  {what}: lag {lag_s:.1f} s after {found.faults[-1][1]:.1f} s")
        if lag_s >= HEALED_S:
            found.wrong.append(f"{what}: lag was still {lag_s:.1f} s when the next fault was due")
        time.sleep(max(0.0, next_at - time.monotonic()))


def _lag_s(system: Installation, looks: int) -> float:
    """The last one that was seen after so many looks; endless where nobody looked or could tell."""
    points = system.recording.points[looks + 1 :]  # the next look may have begun before
    return points[-1].lag_s if points and points[-1].lag_s is not None else float("inf")


class Peak(NamedTuple):
    """Events a second from the first sent to all applied, where the next sender goes on, and what was sent."""

    per_s: float
    next_number: int
    sent: int
    unknown: int


def _peak(system: Installation, seed: int, seconds: float, start: int) -> Peak:
    """As fast as it goes for some seconds."""
    began = time.monotonic()
    sender = Sender(system, seed, None, start).start()
    time.sleep(seconds)
    sender.stop()
    system.settle(deadline_s=120.0)
    return Peak(sender.sent / (time.monotonic() - began), sender.next_number, sender.sent, sender.unknown)


def _shuffled(rnd: random.Random, faults: dict[str, Callable[[random.Random], None]]) -> Iterator[Any]:
    """Each in turn, in another order each time."""
    while True:
        yield from rnd.sample(sorted(faults.items()), len(faults))


class _Keeping:
    """Checkpoints, as the node takes them."""

    def __init__(self, system: Installation) -> None:
        self._system, self._stopping = system, threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        while not self._stopping.wait(5.0):
            for shard in self._system.shard_ids:
                with suppress(IntelGraphError, AssertionError):
                    self._system.checkpoint(shard, deadline_s=1.0)


def _weigh(system: Installation, found: Soaked, since: float) -> None:
    """Memory after the first quarter, which still fills what is bounded."""
    series = [(p.at_s, p.memory_bytes) for p in system.recording.points if p.memory_bytes and p.at_s > since]
    quarter = max(1, len(series) // 4)
    second, last = series[quarter : 2 * quarter], series[-quarter:]
    if not second:
        found.wrong.append("memory was not seen: too short")
        return
    found.memory_first_mib, found.memory_last_mib = (
        median(size for _, size in part) / 2**20 for part in (second, last)
    )
    found.memory_mib_per_minute = slope_per_minute(series[len(series) // 2 :]) / 2**20
    if found.memory_last_mib > (1 + FLAT_SHARE) * found.memory_first_mib:
        found.wrong.append("memory grows")


def _balance(system: Installation, found: Soaked, sent: int, unknown: int) -> None:
    """The conservation equation, what was acknowledged, and the fold's hash."""
    system.outcome.events = system.outcome.acked = sent
    system.outcome.unknown = unknown
    shards = system.opened()
    try:
        books: Any = SimpleNamespace(
            control=system.stack.control, stack=system.stack, log=system.log, settings=system.settings,
            shards=dict(zip(system.shard_ids, shards, strict=True)),
        )  # fmt: skip
        balance = audit(books)
        for row in balance.shards:
            system.outcome.applied += row.applied
            system.outcome.duplicate += row.duplicate
            system.outcome.stale += row.stale
    finally:
        for shard in shards:
            shard.close()
    if not balance.holds:
        found.wrong.append(f"the books do not balance: {balance.as_json()}")
    logged = sum(row.found for row in balance.partitions)
    if not sent <= logged <= sent + unknown:
        found.wrong.append(f"{sent:,} were acknowledged, {unknown:,} unknown, and the log has {logged:,}")
        system.outcome.lost = max(0, sent - logged)
    system.stop_loops()
    fold = Fold().apply_all(r for _, _, rows in system.entries() for r in rows)
    if system.hashes() != (hash_lines(fold.export_lines()), hash_lines(fold.state_lines())):
        found.wrong.append("the shards' hashes are not the fold's")
    system.outcome.checked = True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description="A soak with random faults.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.7, help="of the peak, which is measured first")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stack", choices=("embedded", "production"), default="embedded")
    parser.add_argument("--report", type=Path, default=Path(".chaos"), help="folder of reports")
    given = parser.parse_args()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # its servers end with it, also where it was started in the background
        signal.signal(number, signal.default_int_handler)
    folder = given.report / time.strftime("%Y%m%d-%H%M%S-soak")
    began = time.monotonic()
    with opened(given.stack) as system:
        system.recording.looks = True
        system.start(lake=True)
        found = soak(system, given.minutes, given.share, given.seed, given.every)
    given_again = f"--minutes {given.minutes:g} --share {given.share:g} --seed {given.seed} --stack {given.stack}"
    again = f".venv/bin/python -m tests.faults.soak {given_again}"
    row = Row(
        again, "", f"soak, {given.minutes:g} minutes at {given.share:.0%} of the peak", given.stack, str(given.seed),
        "failed" if found.wrong else "held", time.monotonic() - began, said="; ".join(found.wrong),
        **counted(system.recording),
    )  # fmt: skip
    keep(folder, row, as_lines(system.recording))
    print("\n".join([*found.lines(), str(write(folder))]))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
