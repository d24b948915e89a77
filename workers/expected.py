"""Launches and deaths that are about to show: looked at every few milliseconds, without asking the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.domain.lifecycle import State
from workers.probes.batch import Prober
from workers.watch import Watch

_FIRST_WAIT_S = 0.004
_GROWTH = 1.4
_LONGEST_WAIT_S = 0.25
#: An engine that accepts but does not answer must not hold up the others.
_PROBE_S = 0.2
#: A row that the database did not name again for so long is not ours to look at any more.
_STALE_S = 10.0


@dataclass
class _One:
    row: Any
    since: float
    wait_s: float
    at: float


class Expected:
    """What is looked at soon. ``take`` names it, ``turn`` looks at what is due, ``next_at`` says when to come back."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._ones: dict[str, _One] = {}
        self.prober = Prober()

    def take(self, rows: Iterable[Any]) -> None:
        """Look at these from now on; what is known already goes on at its pace, with the newer row."""
        now = time.monotonic()
        for row in rows:
            known = self._ones.get(row.id)
            if known is not None and known.row.attempt == row.attempt and known.row.state == row.state:
                known.row, known.since = row, now
            else:
                self._ones[row.id] = _One(row, now, _FIRST_WAIT_S, now)

    def turn(self) -> None:
        """Look at what is due; forget what changed: its new state is somebody else's."""
        now = time.monotonic()
        due = [one for one in self._ones.values() if one.at <= now]
        if not due:
            return
        seen = {one.row.id: one for one in self._watch.look([one.row for one in due], self.prober, timeout_s=_PROBE_S)}
        for one in due:
            found = seen.get(one.row.id)
            settled = found is not None and found.verdict.to not in (None, State.WAITING_FOR_READY)
            if settled or self._watch.is_busy(one.row.id) or now - one.since > _STALE_S:
                del self._ones[one.row.id]
                continue
            one.wait_s = min(one.wait_s * _GROWTH, _LONGEST_WAIT_S)
            one.at = time.monotonic() + one.wait_s

    def next_at(self) -> float:
        """Monotonic time of the next look."""
        return min((one.at for one in self._ones.values()), default=float("inf"))
