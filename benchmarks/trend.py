"""Does it grow? The slope of a series by least squares, with the interval in which it lies with 95 % confidence.

Samples of a process's memory are not independent: one that is high is followed by another. An interval that ignores
this is too narrow and finds leaks in noise, so the number of samples is reduced by their autocorrelation (lag one).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trend:
    """Per unit of time: the slope and its interval. ``independent`` is what the samples are worth."""

    slope: float
    low: float
    high: float
    mean: float
    samples: int
    independent: float

    def verdict(self, limit: float) -> str:
        """``grows`` when the slope is surely above ``limit``, ``flat`` when surely not, else ``undecided``."""
        if self.low > limit:
            return "grows"
        return "flat" if self.high <= limit else "undecided"


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """The trend of ``values`` at ``times`` (ascending). ValueError for fewer than five samples or no time between."""
    count = len(times)
    if count < 5:
        raise ValueError("a trend needs at least five samples")
    slope, intercept = statistics.linear_regression(times, values)
    residuals = [value - slope * at - intercept for at, value in zip(times, values, strict=True)]
    mean_time = statistics.fmean(times)
    spread = sum((at - mean_time) ** 2 for at in times)
    worth = _independent(residuals)
    variance = sum(one * one for one in residuals) / (count - 2)
    half = _student(worth - 2) * math.sqrt(variance / spread * (count / worth))
    return Trend(slope, slope - half, slope + half, statistics.fmean(values), count, worth)


def _independent(residuals: Sequence[float]) -> float:
    total = sum(one * one for one in residuals)
    if total == 0:
        return float(len(residuals))
    lag_one = sum(one * next_one for one, next_one in zip(residuals, residuals[1:], strict=False)) / total
    followed = min(max(lag_one, 0.0), 0.99)
    return max(4.0, len(residuals) * (1 - followed) / (1 + followed))


def _student(freedom: float) -> float:
    """Student's quantile for ``CONFIDENCE``, both sides, by the series of Cornish and Fisher."""
    z = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
