"""Replicas of a service that could not be made: why, how often in a row, and when it is tried again. By revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: The first wait after a refusal; it doubles, to the most.
FIRST_S, MOST_S = 5.0, 300.0


@dataclass(frozen=True)
class Refusal:
    """``until`` is in seconds since the epoch by the database's clock."""

    code: str
    message: str
    tries: int
    until: float

    @classmethod
    def after(cls, before: Refusal | None, code: str, message: str, now: float) -> Refusal:
        """The one that follows ``before`` (None: the first in a row)."""
        tries = before.tries + 1 if before else 1
        return cls(code, message, tries, now + min(MOST_S, FIRST_S * 2.0 ** min(tries - 1, 16)))

    def wait_s(self, now: float) -> float:
        """Seconds until it is tried again; 0: now."""
        wait_s = self.until - now
        # further ahead than it is ever set: the clock was set back
        return wait_s if 0.0 < wait_s <= MOST_S else 0.0


def refusals(rollout: Mapping[str, Any]) -> dict[int, Refusal]:
    """What a service's row remembers of them, by revision."""
    return {int(revision): Refusal(**one) for revision, one in (rollout.get("refused") or {}).items()}


def stored(found: Mapping[int, Refusal]) -> dict[str, Any]:
    """As the row keeps them."""
    return {str(revision): asdict(one) for revision, one in found.items()}
