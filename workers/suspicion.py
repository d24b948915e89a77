"""Before a mass verdict: when most of a pool goes silent at once, the fault is more likely ours than theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Fewer silent replicas than this are judged one by one.
LEAST = 3
#: How many more rounds must agree before anybody acts.
ROUNDS = 2


@dataclass
class _Pool:
    silent: dict[str, float] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    since: float | None = None


class Suspicion:
    """What each pool's replicas said in the last round. ``round_s`` is the time between two probes of one replica."""

    def __init__(self, round_s: float) -> None:
        self._round_s = round_s
        self._pools: dict[str, _Pool] = {}

    def note(self, pool: str, replica_id: str, *, silent: bool, now: float) -> None:
        """A replica answered, or did not."""
        known = self._pools.setdefault(pool, _Pool())
        known.heard.pop(replica_id, None)
        known.silent.pop(replica_id, None)
        (known.silent if silent else known.heard)[replica_id] = now

    def forget(self, pool: str, replica_id: str) -> None:
        """It ended; it is no evidence any more."""
        known = self._pools.get(pool)
        if known:
            known.heard.pop(replica_id, None)
            known.silent.pop(replica_id, None)

    def counts(self, pool: str, now: float) -> tuple[int, int]:
        """(silent, all) of the replicas heard of in the last two rounds."""
        known = self._pools.get(pool)
        if known is None:
            return 0, 0
        oldest = now - 2 * self._round_s
        silent = sum(at >= oldest for at in known.silent.values())
        return silent, silent + sum(at >= oldest for at in known.heard.values())

    def holds(self, pool: str, now: float) -> bool:
        """Whether verdicts without proof must wait. True from the moment most went silent, for ``ROUNDS`` rounds."""
        silent, total = self.counts(pool, now)
        known = self._pools.get(pool)
        if known is None or silent < LEAST or silent * 2 <= total:
            if known is not None:
                known.since = None
            return False
        if known.since is None:
            known.since = now
        return now - known.since < ROUNDS * self._round_s

    def is_new(self, pool: str, now: float) -> bool:
        """Whether the suspicion began with this very look."""
        known = self._pools.get(pool)
        return known is not None and known.since == now
