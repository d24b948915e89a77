"""How long the queues are, roughly: counting exactly for every create would cost more with every create that waits."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

#: How old a count may be.
FRESH_S = 0.5
#: More creates than this are not accepted in ``FRESH_S`` by all processes together.
MARGIN = 2000

_COUNT = text("SELECT count(*) FROM tasks WHERE pool = :pool AND state = 'queued' AND kind IN ('create', 'restart')")


class QueueDepths:
    """Counts of one process, each at most ``FRESH_S`` old."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def may_be_full(self, connection: Connection, pool: str, limit: int) -> bool:
        """Whether the queue is so near its limit that the insert must count exactly. Small limits always are."""
        if limit <= MARGIN:
            return True
        counted_at, depth = self._counts.get(pool, (0.0, 0))
        now = time.monotonic()
        if now - counted_at > FRESH_S:
            # set before asking: of many requests at once one counts
            self._counts[pool] = (now, depth)
            depth = int(connection.execute(_COUNT, {"pool": pool}).scalar_one())
            self._counts[pool] = (now, depth)
        return depth >= limit - MARGIN
