"""What the hub said lately, kept for a while: in bounds, and asked for once where many want it at one time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

KEPT_S = 3600.0
#: Models, whether kept one by one or as what was found together.
MOST = 2000


class Shelf:
    """Of one process. ``clock`` is monotonic, in seconds."""

    def __init__(self, most: int = MOST, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._kept_s, self._clock = most, kept_s, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._models = 0
        self._asked: dict[Hashable, Future[Any]] = {}

    def get(self, key: Hashable, look: Callable[[], Any]) -> Any:
        """What is kept under ``key``, else what ``look`` finds now; its error is everybody's who waits for it."""
        with self._lock:
            until, value = self._kept.get(key, (0.0, None))
            if until > self._clock():
                return value
            asked = self._asked.get(key)
            mine = asked is None
            if asked is None:
                asked = self._asked[key] = Future()
        if not mine:
            return asked.result()
        try:
            value = look()
        except BaseException as error:
            self._forget(key)
            asked.set_exception(error)
            raise
        self._keep(key, value)
        asked.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Any) -> None:
        with self._lock:
            if key in self._kept:
                self._models -= _models(self._kept.pop(key)[1])
            self._models += _models(value)
            self._kept[key] = (self._clock() + self._kept_s, value)
            while self._models > self._most:
                self._models -= _models(self._kept.popitem(last=False)[1][1])
            del self._asked[key]

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            del self._asked[key]


def _models(value: Any) -> int:
    # that nothing was found is kept too
    return len(value) + 1 if isinstance(value, list) else 1
