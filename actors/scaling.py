"""How many stream workers there should be: a pure function of one look after the other.

    decide(limits, before, load) → Scaling(workers, reason, what the next look has to know)

A worker is *lacking* while lag is over its upper limits and does not fall fast enough, or grows while the workers have
no CPU left. One is *too much* while lag is below its lower limits and the others could take its work. Between the two
nothing changes; nor does it for a single look. So the number goes up fast (twice as many) and down slowly (by one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.config_streams import StreamSettings


@dataclass(frozen=True, slots=True)
class Load:
    """One look at what is to be done, and at who does it.

    Args:
        at: seconds of a clock that never goes back.
        lag_records: there and unread, of all partitions that can be read.
        lag_s: age of the last record read, in the partition that is furthest behind.
        partitions: of active streams.
        worker_cpu: share of a core that each worker takes.
        cores_free: of each host that says so.
        starting: workers that do not answer: they have not begun yet, or not again.
        waits: why the workers stand still, all of them; then another one would, too.
    """

    at: float
    lag_records: int = 0
    lag_s: float = 0.0
    partitions: int = 0
    worker_cpu: tuple[float, ...] = ()
    cores_free: tuple[float, ...] = ()
    starting: int = 0
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many workers are wanted, and why.

    Args:
        reason: of the last look, in words.
        lags: (when, records), of the last looks.
        lacking, spare: looks in a row that found a worker lacking, or one too much.
        changed: when the number changed last; None: never.
    """

    workers: int
    reason: str = ""
    lags: tuple[tuple[float, int], ...] = ()
    lacking: int = 0
    spare: int = 0
    changed: float | None = None


def bounds(limits: StreamSettings, partitions: int) -> tuple[int, int]:
    """Fewest and most workers: a worker without a partition has nothing to do, and there is always one."""
    most = max(1, min(limits.workers_max, partitions))
    return min(limits.workers_min, most), most


def slope(lags: tuple[tuple[float, int], ...]) -> float:
    """Records a second by which lag grows: a straight line through the looks, by least squares."""
    if len(lags) < 2:
        return 0.0
    mean_at, mean_lag = sum(at for at, _ in lags) / len(lags), sum(lag for _, lag in lags) / len(lags)
    spread = sum((at - mean_at) ** 2 for at, _ in lags)
    return sum((at - mean_at) * (lag - mean_lag) for at, lag in lags) / spread if spread else 0.0


def decide(limits: StreamSettings, before: Scaling, load: Load) -> Scaling:
    """The number after one more look. Whatever the figures are, it stays within `bounds`, goes up to twice as many at
    most and down by one; only where the bounds themselves have moved it follows them at once."""
    scaling = limits.scaling
    lags = (*before.lags, (load.at, load.lag_records))[-scaling.window_looks :]
    least, most = bounds(limits, load.partitions)
    now = replace(before, lags=lags, workers=min(max(before.workers, least), most))
    if now.workers != before.workers:
        return _changed(now, load, f"{load.partitions} partitions want {least} to {most} workers")
    lacking, spare = _lacking(limits, load, slope(lags)), _spare(limits, load, now.workers)
    seen = lacking and not load.starting  # what a worker that starts will do is not known yet
    now = replace(now, lacking=now.lacking + 1 if seen else 0, spare=now.spare + 1 if spare else 0)
    if lacking:
        return _more(limits, now, load, lacking, most)
    if spare and now.workers > least:
        return _fewer(limits, now, load, spare)
    return replace(now, reason=f"enough: {_lag(load)}")


def _more(limits: StreamSettings, now: Scaling, load: Load, lacking: str, most: int) -> Scaling:
    scaling = limits.scaling
    if now.workers == most:
        kept = "no more partitions" if most == load.partitions else "no more are allowed (streams.workers_max)"
    elif load.waits:
        kept = f"workers wait: {load.waits}"
    elif load.starting:
        kept = f"{load.starting} of {now.workers} workers are starting"
    elif load.cores_free and max(load.cores_free) < scaling.cores_free:
        kept = f"no host has CPU left: {max(load.cores_free):.1f} cores are free"
    elif now.lacking < scaling.up_looks:
        kept = f"look {now.lacking} of {scaling.up_looks}"
    elif _since(now, load) < scaling.up_pause_s:
        kept = f"{_since(now, load):.0f} s after the last change"
    else:
        return _changed(replace(now, workers=min(most, 2 * now.workers)), load, lacking)
    return replace(now, reason=f"{lacking}; {kept}")


def _fewer(limits: StreamSettings, now: Scaling, load: Load, spare: str) -> Scaling:
    scaling = limits.scaling
    if now.spare < scaling.down_looks:
        kept = f"look {now.spare} of {scaling.down_looks}"
    elif _since(now, load) < scaling.down_pause_s:
        kept = f"{_since(now, load):.0f} s after the last change"
    else:
        return _changed(replace(now, workers=now.workers - 1), load, spare)
    return replace(now, reason=f"{spare}; {kept}")


def _changed(now: Scaling, load: Load, reason: str) -> Scaling:
    return replace(now, reason=reason, lacking=0, spare=0, changed=load.at)


def _since(now: Scaling, load: Load) -> float:
    return float("inf") if now.changed is None else load.at - now.changed


def _lacking(limits: StreamSettings, load: Load, slope: float) -> str:
    """Why a worker is lacking; empty: none is. Of a slow topic a single record that was just written is old at once:
    the record before it is. So seconds count only where there are records enough for more than an instant."""
    scaling, records = limits.scaling, load.lag_records
    late = load.lag_s > scaling.up_lag_s and records > scaling.down_lag_records
    if records > scaling.up_lag_records or late:
        if slope < 0 and records <= -slope * scaling.catch_up_s:
            return ""
        return f"{_lag(load)}, {_trend(slope)}"
    if slope > 0 and records > scaling.down_lag_records and _cpu(load) > scaling.up_cpu:
        return f"{_lag(load)}, {_trend(slope)}, and workers take {_cpu(load):.0%} of a core each"
    return ""


def _spare(limits: StreamSettings, load: Load, workers: int) -> str:
    """Why a worker is too much; empty: none is."""
    scaling = limits.scaling
    if load.lag_records > scaling.down_lag_records or workers < 2 or 0 < len(load.worker_cpu) < workers:
        return ""  # also where one does not answer: its share is not known
    then = sum(load.worker_cpu) / (workers - 1)
    return f"{_lag(load)}, and {workers - 1} would take {then:.0%} of a core each" if then <= scaling.down_cpu else ""


def _cpu(load: Load) -> float:
    return sum(load.worker_cpu) / len(load.worker_cpu) if load.worker_cpu else 0.0


def _lag(load: Load) -> str:
    return f"lag {load.lag_records:,} records, {load.lag_s:,.0f} s"


def _trend(slope: float) -> str:
    return "steady" if abs(slope) < 1 else f"{'growing' if slope > 0 else 'falling'} by {abs(slope):,.0f} a second"
