"""Work on one replica at a time, in threads: what is under way for a replica is not begun again, and no place that does
not answer takes all threads."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

log = logging.getLogger(__name__)


class Jobs:
    """A bounded number of threads, ``each`` of them for one place. A job that raises is logged; the next sweep tries it
    again."""

    def __init__(self, name: str, each: int, places: int = 1) -> None:
        self._threads = ThreadPoolExecutor(each * places, thread_name_prefix=name)
        self._each = each
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._under_way: Counter[object] = Counter()
        self._waiting: defaultdict[object, deque[tuple[str, Callable[[], None]]]] = defaultdict(deque)
        self._closed = False

    def begin(self, replica_id: str, act: Callable[..., None], *arguments: object, place: object = None) -> None:
        """Carry out ``act`` soon, unless something is under way for that replica."""
        with self._lock:
            if replica_id in self._busy or self._closed:
                return
            self._busy.add(replica_id)
            self._waiting[place].append((replica_id, partial(act, *arguments)))
        self._go_on(place)

    def has(self, replica_id: str) -> bool:
        """Whether something is under way for it."""
        return replica_id in self._busy

    def close(self) -> None:
        """Wait for what is under way; what has not begun is dropped."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _go_on(self, place: object) -> None:
        with self._lock:
            if self._closed or self._under_way[place] >= self._each or not self._waiting[place]:
                return
            replica_id, act = self._waiting[place].popleft()
            self._under_way[place] += 1
            future = self._threads.submit(act)
        future.add_done_callback(partial(self._done, place, replica_id))

    def _done(self, place: object, replica_id: str, finished: Future[None]) -> None:
        with self._lock:
            self._busy.discard(replica_id)
            self._under_way[place] -= 1
            if not self._under_way[place] and not self._waiting[place]:
                del self._under_way[place], self._waiting[place]
        error = None if finished.cancelled() else finished.exception()
        if error is not None:
            log.error("replica %s: %s; it is tried again", replica_id, error, exc_info=error)
        self._go_on(place)
