"""Room for bodies in memory: few at a time, a bounded queue, and who finds neither is told so at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from app.errors import RouteFull

FULL = "The slow lane reads as many large bodies as it can. Wait as long as Retry-After says."


class Room:
    """So many bytes, and so many who wait for some. Works with greenlets where threading is patched."""

    def __init__(self, size_bytes: int, queue: int, wait_s: float) -> None:
        self._size, self._queue, self._wait_s = size_bytes, queue, wait_s
        self._taken = 0
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> Place:
        """Room for a body of up to ``size_bytes``. Raises RouteFull."""
        wanted = min(size_bytes, self._size)
        with self._lock:
            if not self._waiting and self._taken + wanted <= self._size:
                self._taken += wanted
                return Place(wanted, self._give)
            if len(self._waiting) >= self._queue:
                raise RouteFull(FULL, retry_after_s=2)
            entry = (wanted, threading.Event())
            self._waiting.append(entry)
        if not entry[1].wait(self._wait_s):
            with self._lock:
                if not entry[1].is_set():
                    self._waiting.remove(entry)
                    self._admit()
                    raise RouteFull(FULL, retry_after_s=2)
        return Place(wanted, self._give)

    def _give(self, size_bytes: int) -> None:
        with self._lock:
            self._taken -= size_bytes
            self._admit()

    def _admit(self) -> None:
        # in their order: a large body must not wait for ever behind small ones
        while self._waiting and self._taken + self._waiting[0][0] <= self._size:
            wanted, event = self._waiting.popleft()
            self._taken += wanted
            event.set()


class Place:
    """Room that was taken; given back once, in parts or at the end."""

    def __init__(self, size_bytes: int, give: Callable[[int], None]) -> None:
        self._held, self._give = size_bytes, give

    def shrink(self, size_bytes: int) -> None:
        """Keep no more than ``size_bytes``."""
        if self._held > size_bytes:
            spare, self._held = self._held - size_bytes, size_bytes
            self._give(spare)

    def leave(self) -> None:
        self.shrink(0)
