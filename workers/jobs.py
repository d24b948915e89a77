"""Work on one replica at a time, in threads: what is under way for a replica is not begun again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

log = logging.getLogger(__name__)


class Jobs:
    """A bounded number of threads. A job that raises is logged; the next sweep tries it again."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def begin(self, replica_id: str, act: Callable[..., None], *arguments: object) -> None:
        """Carry out ``act`` soon, unless something is under way for that replica."""
        with self._lock:
            if replica_id in self._busy:
                return
            self._busy.add(replica_id)
        future = self._threads.submit(act, *arguments)

        def done(finished: Future[None]) -> None:
            with self._lock:
                self._busy.discard(replica_id)
            error = None if finished.cancelled() else finished.exception()
            if error is not None:
                log.error("replica %s: %s; it is tried again", replica_id, error, exc_info=error)

        future.add_done_callback(done)

    def has(self, replica_id: str) -> bool:
        """Whether something is under way for it."""
        return replica_id in self._busy

    def close(self) -> None:
        """Wait for what is under way; what has not begun is dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)
