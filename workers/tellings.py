"""What backends tell of attempts beside their states: written when it changed, and now and then when it did not."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from app.usecases import watching
from app.usecases.context import Context
from app.usecases.watching import Told

#: Another process may have written something else meanwhile.
AGAIN_S = 20.0


class Tellings:
    """May be used from several threads."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._lock = threading.Lock()
        #: replica -> what was written last, and when
        self._written: dict[str, tuple[Told, float]] = {}

    def keep(self, told: Sequence[Told]) -> None:
        """Write what is news."""
        now = time.monotonic()
        with self._lock:
            self._written = {one: kept for one, kept in self._written.items() if now - kept[1] < AGAIN_S}
            news = [one for one in told if self._written.get(one.replica_id, (None,))[0] != one]
        watching.record_told(self._ctx, news)
        with self._lock:
            self._written |= {one.replica_id: (one, now) for one in news}
