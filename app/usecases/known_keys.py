"""Keys that this process has looked up: for a moment as they were then, and for longer while the database is away.

What is answered from memory (which server can do what, models that replicas serve) goes on in an outage, and the
gateway lets the same keys through. A key that the database has once called ended is not known any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import Unavailable
from app.usecases.beside import Beside

#: A revoked key works at most this much longer in a process that has just seen it.
CACHED_S = 1.0
#: How long a key outlives its last look-up while the database does not answer; never its own end.
OUTAGE_S = 900.0
#: Longest wait of a request whose key is known for a database that hangs.
PATIENCE_S = 2.0
#: Keys remembered per process; beyond it all are forgotten and looked up again.
CACHED = 4096


@dataclass(frozen=True)
class Holder:
    """Who holds a key. ``ends_in_s`` is None for one without an end."""

    id: str
    name: str
    role: str
    models: tuple[str, ...] | None
    ends_in_s: float | None = None


@dataclass(frozen=True)
class _Known:
    holder: Holder
    seen_at: float

    def is_good(self, now: float, for_s: float) -> bool:
        ends_in_s = self.holder.ends_in_s
        return now < self.seen_at + (for_s if ends_in_s is None else min(for_s, ends_in_s))


class KnownKeys:
    """By hash. One per database."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        #: until when the database is not asked about keys that are known: it has just said that it is away
        self._away_until = float("-inf")
        #: a look-up that has not come back: it hangs
        self._hung: Beside[Holder | None] | None = None

    def holder(self, key_hash: str, ask: Callable[[], Holder | None]) -> Holder | None:
        """Who holds it, from memory or by ``ask``. Raises Unavailable for a key that is not known well enough."""
        now = time.monotonic()
        known = self._known.get(key_hash)
        if known is not None and known.is_good(now, CACHED_S):
            return known.holder
        if known is None or not known.is_good(now, OUTAGE_S):
            found = ask()
            self._keep(key_hash, found, now)
            return found
        if now < self._away_until or (self._hung is not None and not self._hung.is_over):
            return known.holder
        return self._look_up(key_hash, ask, now, known.holder)

    def forget(self) -> None:
        """Look all of them up again."""
        self._known.clear()

    def _look_up(self, key_hash: str, ask: Callable[[], Holder | None], now: float, before: Holder) -> Holder | None:
        def act() -> Holder | None:
            found = ask()
            self._keep(key_hash, found, now)
            return found

        look_up = Beside(act, "look up a key")
        if not look_up.wait(PATIENCE_S):
            self._hung = look_up
            return before
        try:
            return look_up.result()
        except Unavailable:
            self._away_until = time.monotonic() + CACHED_S
            return before

    def _keep(self, key_hash: str, found: Holder | None, seen_at: float) -> None:
        if found is None:
            self._known.pop(key_hash, None)
            return
        if len(self._known) >= CACHED:
            self._known.clear()
        self._known[key_hash] = _Known(found, seen_at)
