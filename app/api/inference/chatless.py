"""Which services have a model that knows no chats: found out once, and not with every prompt."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: A service and its revision: another revision may be of another model.
Key = tuple[str, int]

KEPT_S = 600.0
MOST = 10_000


class Chatless:
    """Of one process. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._without: OrderedDict[Key, float] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return self._without.get(key, 0.0) > self._clock()

    def add(self, key: Key) -> None:
        """Remember it: a chat was refused, and going on from the text worked."""
        with self._lock:
            self._without.pop(key, None)
            self._without[key] = self._clock() + KEPT_S
            while len(self._without) > MOST:
                self._without.popitem(last=False)

    def forget(self, key: Key) -> None:
        with self._lock:
            self._without.pop(key, None)
