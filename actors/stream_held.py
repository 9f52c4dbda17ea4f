"""A partition of a stream that its reader holds: where it stands, whether it rests, and its gauges."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace

from actors.ingest import IngestWorker
from actors.stages import Origin
from actors.stream_progress import StreamProgress
from cluster.errors import IntelGraphError, Retryable
from cluster.streams.model import StreamPartition
from cluster.telemetry import metrics

_REST_FIRST_S, _WAIT_MOST_S, _REST_MOST_S = 1.0, 5.0, 60.0
_GAUGES = (metrics.STREAM_LAG_RECORDS, metrics.STREAM_LAG_SECONDS, metrics.STREAM_STOPPED)


@dataclass
class Held:
    """A partition under lease.

    Args:
        token: of the lease.
        record_ms: as in `StreamPartition`.
        rest_s: how long it rests the next time that it cannot be read on.
        due: when it is tried again, by the monotonic clock.
    """

    part: StreamPartition
    token: int
    progress: StreamProgress
    worker: IngestWorker
    origin: Origin
    record_ms: int
    rest_s: float = _REST_FIRST_S
    due: float = 0.0

    @property
    def readable(self) -> bool:
        """Whether it is to be read now: it does not rest, and its range goes on."""
        at_cut = self.part.cut is not None and self.progress.offset >= self.part.cut
        return not at_cut and time.monotonic() >= self.due

    def rest(self, failed: IntelGraphError) -> None:
        """It cannot be read on: longer each time, but not for long where that may pass by itself."""
        most_s = _WAIT_MOST_S if isinstance(failed, Retryable) else _REST_MOST_S
        self.due, self.rest_s = time.monotonic() + min(self.rest_s, most_s), min(2 * self.rest_s, most_s)

    def go_on(self) -> None:
        """It can be read, or is to be tried at once."""
        self.due, self.rest_s = 0.0, _REST_FIRST_S

    def seen(self, part: StreamPartition) -> None:
        """As it is kept now. Whoever resumes the stream takes its note away: then it is tried at once."""
        if self.part.note and not part.note:
            self.go_on()
        self.part = part

    def measure(self, stream: str, now: float) -> None:
        """Sets its gauges, as far as the topic is known to go."""
        at, labels = replace(self.part, offset=self.progress.offset, record_ms=self.record_ms), self._labels(stream)
        metrics.STREAM_LAG_RECORDS.labels(*labels).set(at.lag_records)
        metrics.STREAM_LAG_SECONDS.labels(*labels).set(at.lag_s(now))
        metrics.STREAM_STOPPED.labels(*labels).set(bool(at.note))

    def forget(self, stream: str) -> None:
        """Takes its gauges away."""
        for gauge in _GAUGES:
            with suppress(KeyError):
                gauge.remove(*self._labels(stream))

    def _labels(self, stream: str) -> tuple[str, str]:
        return stream, str(self.part.partition)
