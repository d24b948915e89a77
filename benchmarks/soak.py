"""``soak``: a stack under churn for a while; does anything grow? ``python -m benchmarks soak --minutes 60``.

Each role's memory and each table is sampled, the beginning is left out, and the slope of what remains is told with
its interval. History is kept for minutes here instead of weeks, so that the tables reach their bound within the run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from benchmarks.soaking.churn import Churn
from benchmarks.soaking.sampling import Sample, Sampler, limit
from benchmarks.stack import Stack, stack, wait_until
from benchmarks.trend import Trend, trend

MINUTES = 15.0
RATE_PER_S = 6.0
SEED = 3
#: Shares of the run: what is kept of the history, and what the slope leaves out at the beginning.
KEPT_SHARE, WARM_UP_SHARE = 1 / 8, 1 / 3
SAMPLES = 240
#: Settling of what is under way at the end.
SETTLE_S = 60.0
GOAL = "nothing surely grows by more than 2 % an hour; no answer that should not be"


def run(rounds: int, minutes: float = MINUTES, rate_per_s: float = RATE_PER_S, keep: str = "") -> Result:
    """One run; ``rounds`` is of no use here. ``keep`` is a file that the samples are written to as they come."""
    kept_s = min(600.0, 60 * minutes * KEPT_SHARE)
    with stack(HOSTLER_RETENTION_DAYS=str(kept_s / 86400), HOSTLER_LOG_BYTES="65536") as ours:
        churn, sampler = Churn(ours, rate_per_s, SEED), Sampler(ours)
        churn.start()
        try:
            times, samples = _watch(sampler, minutes, keep)
        finally:
            churn.stop()
        left = _leftovers(ours)
        sampler.close()
    trends = trends_of(times, samples, warm_up_h=minutes * WARM_UP_SHARE / 60)
    return _told(trends, churn, left, minutes, kept_s)


def trends_of(times_h: Sequence[float], samples: Sequence[Sample], warm_up_h: float) -> dict[str, Trend]:
    """The trend of each series after the warm-up, per hour. A role that was away at a sample counts as 0 there."""
    first = next(number for number, at in enumerate(times_h) if at >= warm_up_h)
    names = sorted({name for sample in samples[first:] for name in sample})
    return {
        name: trend(times_h[first:], [sample.get(name, 0.0) for sample in samples[first:]])
        for name in names
        # how many processes live follows the churn
        if not name.endswith(" processes")
    }


def _watch(sampler: Sampler, minutes: float, keep: str) -> tuple[list[float], list[Sample]]:
    started = time.monotonic()
    pause_s = max(1.0, 60 * minutes / SAMPLES)
    times, samples = [], []
    while (passed_s := time.monotonic() - started) < 60 * minutes:
        times.append(passed_s / 3600)
        samples.append(sampler.sample())
        if keep:
            with Path(keep).open("a") as file:
                file.write(json.dumps({"hours": round(times[-1], 5), **samples[-1]}) + "\n")
        if len(samples) % 20 == 0:
            print(f"soak: {passed_s / 60:.0f} of {minutes:g} min", file=sys.stderr, flush=True)
        time.sleep(max(0.0, pause_s * len(samples) - (time.monotonic() - started)))
    return times, samples


def _leftovers(ours: Stack) -> dict[str, int]:
    """Engines without a living replica of pool ``local`` and the other way round, once nothing is under way."""
    api = ours.api

    def counts() -> tuple[int, int]:
        rows = api.must(200, "GET", "/api/v1/replicas?limit=200&pool=local")["replicas"]
        living = [row for row in rows if row["released_at"] is None]
        return len(living), len({row["replica_id"] for row in ours.processes() if row["role"] == "engine"})

    wait_until(lambda: len(set(counts())) == 1, SETTLE_S, "as many engines as living replicas", every_s=0.5)
    living, running = counts()
    return {"living": living, "engines": running}


def _told(trends: dict[str, Trend], churn: Churn, left: dict[str, int], minutes: float, kept_s: float) -> Result:
    verdicts = {name: one.verdict(limit(name, one.mean)) for name, one in trends.items()}
    grows = sorted(name for name, verdict in verdicts.items() if verdict == "grows")
    readers = churn.readers
    ok = not grows and not churn.surprises and not readers.out_of_order
    memory = {name: one for name, one in trends.items() if name.endswith("own_mib")}
    total, mean = sum(one.slope for one in memory.values()), sum(one.mean for one in memory.values())
    notes: dict[str, Any] = {
        "minutes": minutes,
        "warm_up_min": round(minutes * WARM_UP_SHARE, 1),
        "history_kept_min": round(kept_s / 60, 1),
        "cores": os.cpu_count(),
        "grows": grows,
        "undecided": sorted(name for name, verdict in verdicts.items() if verdict == "undecided"),
        "acts": dict(sorted(churn.acts.items())),
        "surprises": dict(churn.surprises),
        "streams": {
            "events": readers.events,
            "breaks": readers.breaks,
            "resets": readers.resets,
            "out_of_order": readers.out_of_order,
        },
        "at_the_end": left,
        "per_hour": {name: _line(one, verdicts[name]) for name, one in trends.items()},
    }
    return Result("soak", total, mean, total / mean if mean else 0.0, GOAL, ok, "MiB/h", 1, notes)


def _line(one: Trend, verdict: str) -> dict[str, Any]:
    return {
        "mean": round(one.mean, 2),
        "slope": round(one.slope, 3),
        "low": round(one.low, 3),
        "high": round(one.high, 3),
        "samples": one.samples,
        "independent": round(one.independent, 1),
        "verdict": verdict,
    }
