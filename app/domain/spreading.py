"""Which of several servers that would all do: the one with the least to do, as far as one knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: A request that was handed out counts half after this time: nobody says when it ended.
HALF_LIFE_S = 5.0
#: Of more candidates than this, so many are looked at: the best of them is as good as the best of all.
LOOKED_AT = 32
#: Servers whose count is kept; beyond it all that have faded go.
KEPT = 20_000
_FADED = 0.01


class HandedOut:
    """How often each was handed out of late. Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}

    def add(self, key: str, now: float) -> None:
        if len(self._counts) >= KEPT:
            self._counts = {one: found for one, found in self._counts.items() if self.load(one, now) > _FADED}
        self._counts[key] = (self.load(key, now) + 1.0, now)

    def load(self, key: str, now: float) -> float:
        count, at = self._counts.get(key, (0.0, now))
        return count * 0.5 ** (max(0.0, now - at) / HALF_LIFE_S)

    def forget(self, key: str) -> None:
        self._counts.pop(key, None)


def choose(
    candidates: Sequence[str],
    load: Callable[[str, float], float],
    sample: Callable[[Sequence[str], int], list[str]],
    now: float,
) -> str:
    """The least loaded of ``candidates``, of which there is at least one; among equals any."""
    # shuffled too: processes that know nothing of each other must not all begin with the same one
    looked_at = sample(candidates, min(LOOKED_AT, len(candidates)))
    return min(looked_at, key=lambda key: load(key, now))
