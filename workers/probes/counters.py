"""An engine's counters, read from its Prometheus text."""

from __future__ import annotations

import http.client
import time

from app.domain.progress import Reading
from app.engines.base import Counters
from workers.probes.request import answered

_MAX_BYTES = 4 * 1024 * 1024


def read_counters(counters: Counters, base_url: str, key: str, timeout_s: float) -> Reading | None:
    """What it counted until now; None when it does not tell within ``timeout_s``. Never raises for what it does."""
    try:
        with answered(base_url, "GET", counters.path, key=key, deadline=time.monotonic() + timeout_s) as answer:
            if not 200 <= answer.status < 300:
                return None
            return parse_counters(counters, answer.read(_MAX_BYTES).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return None


def parse_counters(counters: Counters, text: str) -> Reading | None:
    """The sums over all labels; None when one of the names is not there or is no number.

    Of an engine whose counters are ``born_late`` a name that is not there stands at 0; None only when there are no
    metrics at all.
    """
    names = {*counters.finished, *counters.progress}
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0].strip()
        if name and not name.startswith("#"):
            try:
                found[name] = found.get(name, 0.0) + float(value)
            except ValueError:
                continue
    if counters.born_late and found:
        found = dict.fromkeys(names, 0.0) | found
    if not found.keys() >= names:
        return None
    return Reading(sum(found[name] for name in counters.finished), sum(found[name] for name in counters.progress))
