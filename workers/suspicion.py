"""Before a mass verdict: when most of a pool goes silent at once, the fault is more likely ours than theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

#: Fewer silent replicas than this are judged one by one.
LEAST = 3
#: How many more rounds must agree before anybody acts.
ROUNDS = 2


class Doubt(Enum):
    """What a pool's silence is worth at one moment."""

    #: most of it answers, or too few are silent to mean anything
    NONE = "none"
    #: most went silent, and this is the first look that shows it: told once
    BEGINS = "begins"
    #: nobody acts on verdicts without proof
    HOLDS = "holds"
    #: still silent after ``ROUNDS`` rounds: the backend's own word decides
    OUTLASTED = "outlasted"


@dataclass
class _Pool:
    #: replica -> (silent since, last looked at)
    silent: dict[str, tuple[float, float]] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    since: float | None = None


class Suspicion:
    """What each pool's replicas said in the last rounds. May be used from several threads.

    ``round_s`` is the time between two probes of one replica, ``slack_s`` how long a probe may take.
    """

    def __init__(self, round_s: float, slack_s: float = 0.0) -> None:
        self._round_s = round_s
        self._window_s = 2 * round_s + slack_s
        self._pools: dict[str, _Pool] = {}
        self._lock = threading.Lock()

    def note(self, pool: str, replica_id: str, *, silent: bool, now: float) -> None:
        """A replica answered, or did not. Note all of a batch before asking about any of it."""
        with self._lock:
            known = self._pools.setdefault(pool, _Pool())
            if silent:
                known.heard.pop(replica_id, None)
                since, _ = known.silent.get(replica_id, (now, now))
                known.silent[replica_id] = (since, now)
            else:
                known.silent.pop(replica_id, None)
                known.heard[replica_id] = now

    def note_answering(self, answered: Iterable[tuple[str, str]], now: float) -> set[str]:
        """Many (pool, replica) answered. Returns their pools."""
        pools = set()
        with self._lock:
            for pool, replica_id in answered:
                known = self._pools.setdefault(pool, _Pool())
                known.silent.pop(replica_id, None)
                known.heard[replica_id] = now
                pools.add(pool)
        return pools

    def forget(self, pool: str, replica_id: str) -> None:
        """It ended; it is no evidence any more."""
        with self._lock:
            known = self._pools.get(pool, _Pool())
            known.heard.pop(replica_id, None)
            known.silent.pop(replica_id, None)

    def is_confirmed(self, pool: str, replica_id: str, now: float) -> bool:
        """Whether that replica was silent for a whole round, so that the others' silence was seen too."""
        with self._lock:
            since, _ = self._pools.get(pool, _Pool()).silent.get(replica_id, (now, now))
            return now - since >= self._round_s

    def counts(self, pool: str, now: float) -> tuple[int, int]:
        """(silent, all) of the replicas looked at lately."""
        with self._lock:
            return self._counts(self._pools.get(pool, _Pool()), now)

    def doubt(self, pool: str, now: float) -> Doubt:
        """What to think of the pool's silence now."""
        with self._lock:
            known = self._pools.setdefault(pool, _Pool())
            silent, total = self._counts(known, now)
            if silent < LEAST or silent * 2 <= total:
                known.since = None
                return Doubt.NONE
            if known.since is None:
                known.since = now
                return Doubt.BEGINS
            return Doubt.HOLDS if now - known.since < ROUNDS * self._round_s else Doubt.OUTLASTED

    def _counts(self, known: _Pool, now: float) -> tuple[int, int]:
        oldest = now - self._window_s
        silent = sum(at >= oldest for _, at in known.silent.values())
        return silent, silent + sum(at >= oldest for at in known.heard.values())
