"""A slope and how sure it is: real growth is found, noise and what wanders about is not."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.soak import trends_of
from benchmarks.soaking.sampling import limit
from benchmarks.trend import trend

HOURS = [number / 240 for number in range(240)]


def test_a_line_has_its_slope_and_no_doubt() -> None:
    found = trend(HOURS, [3 + 7 * at for at in HOURS])
    assert (found.low, found.slope, found.high) == pytest.approx((7, 7, 7))
    assert found.verdict(6.9) == "grows"
    assert found.verdict(7.1) == "flat"


def test_the_interval_is_the_textbooks_for_independent_noise() -> None:
    """By hand: squares of the residuals 0.091, so s = 0.1742; t(3) = 3.182; half the width = t * s / sqrt(10)."""
    found = trend([1, 2, 3, 4, 5], [2.0, 4.1, 5.9, 8.2, 9.8])
    assert found.slope == pytest.approx(1.97)
    assert found.high - found.slope == pytest.approx(0.1753, rel=0.03)


def test_growth_is_found_in_noise() -> None:
    drawn = random.Random(1)
    found = trend(HOURS, [200 + 20 * at + drawn.gauss(0, 3) for at in HOURS])
    assert found.low < 20 < found.high
    assert found.verdict(limit("role web own_mib", found.mean)) == "grows"


def test_noise_alone_grows_seldom() -> None:
    drawn = random.Random(2)
    grown = [trend(HOURS, [drawn.gauss(0, 1) for _ in HOURS]).verdict(0) == "grows" for _ in range(300)]
    # 2.5 in a hundred lie above by chance
    assert sum(grown) < 20


def test_what_wanders_is_not_taken_for_growth() -> None:
    """Each value follows the one before: taken for independent, a third of such series would surely grow."""
    drawn, grown = random.Random(3), 0
    for _ in range(300):
        value, values = 0.0, []
        for _ in HOURS:
            value = 0.9 * value + drawn.gauss(0, 1)
            values.append(value)
        grown += trend(HOURS, values).verdict(0) == "grows"
    assert grown < 25


def test_a_saw_is_flat_or_undecided() -> None:
    found = trend(HOURS, [100 + (number % 40) for number in range(240)])
    assert found.verdict(2) in ("flat", "undecided")


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="five"):
        trend([1, 2, 3, 4], [1, 2, 3, 4])


def test_the_warm_up_is_left_out_and_a_role_that_was_away_counts_as_nothing() -> None:
    samples = [{"role web rss_mib": 1000.0 if at < 0.5 else 50.0, "role web processes": 3.0} for at in HOURS]
    samples[-1] = {}
    found = trends_of(HOURS, samples, warm_up_h=0.5)
    assert set(found) == {"role web rss_mib"}
    assert found["role web rss_mib"].samples == 120
    assert found["role web rss_mib"].mean == pytest.approx(50 * 119 / 120)


def test_what_counts_as_no_growth_has_a_least() -> None:
    assert limit("role web own_mib", 1000) == 20
    assert limit("role beat own_mib", 1) == 2
    assert limit("table events rows", 0) == 100
    assert limit("table events mib", 500) == 10
    assert limit("files attempts", 10_000) == 200
    assert not math.isnan(limit("role web fds", 0))
