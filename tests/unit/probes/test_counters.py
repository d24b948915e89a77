"""Prometheus text, as engines write it."""

from __future__ import annotations

import pytest

from app.domain.progress import Reading
from app.engines.base import Counters
from workers.probes.counters import parse_counters

WANTED = Counters("/metrics", finished=("e:done_total",), progress=("e:tokens_total", "e:steps_total"))


def test_sums_over_labels_and_names() -> None:
    text = """
# HELP e:done_total Requests.
# TYPE e:done_total counter
e:done_total{reason="stop"} 3
e:done_total{reason="length, or so"} 4
e:tokens_total 1e3
e:steps_total 0.5
e:other_total 99
"""
    assert parse_counters(WANTED, text) == Reading(7, 1000.5)


@pytest.mark.parametrize("text", ["", "<html></html>", "e:done_total 1\ne:tokens_total x\ne:steps_total 1"])
def test_what_is_not_told_is_none(text: str) -> None:
    assert parse_counters(WANTED, text) is None
