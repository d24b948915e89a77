"""Ringing: after the commit, without waiting, and never an error for the caller. A lost ring costs one sweep."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping

from celery import Celery
from kombu.exceptions import OperationalError

from app.doorbell.queues import declare, task_name

log = logging.getLogger(__name__)

#: The ringing thread ends after this time without work and is started again by the next ring.
IDLE_S = 30.0
#: Between two bells of one process for the same thing.
COALESCE_S = 0.01
#: Between two rings of one verb on one queue. Publishing costs the API more than answering a request does, and whoever
#: hears the first ring goes on by itself while there is more to do.
GAP_S = 0.01
#: How long closing waits for a ring under way.
CLOSE_S = 5.0


class Doorbell:
    """Rings queues. Rings of the same verb and queue that wait together become one: one bell is enough,
    because whoever answers it rings again while there is more to do."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str], Mapping[str, str | int]] = {}
        self._wake = threading.Event()
        self._running = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def ring(self, verb: str, queue: str, **scope: str) -> None:
        """Tell the workers of ``queue`` that there is a ``verb`` to do in ``scope`` (``pool=`` or ``node=``)."""
        with self._lock:
            self._pending[verb, queue] = scope
            start, self._running = not self._running, True
        self._wake.set()
        if start:
            self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
            self._thread.start()

    def ring_now(self, verb: str, queue: str, **scope: str | int) -> bool:
        """The same, in this thread; False when the broker did not take it."""
        return self._publish([((verb, queue), scope)])

    def close(self) -> None:
        """Let go of the broker's connections. Call it when nobody rings any more."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self._celery.pool.force_close_all()
        self._celery.close()

    def _run(self) -> None:
        rung: dict[tuple[str, str], float] = {}
        wait_s = IDLE_S
        while True:
            heard = self._wake.wait(wait_s)
            self._wake.clear()
            with self._lock:
                if self._closed or not (heard or self._pending):
                    self._running = False
                    return
                now = time.monotonic()
                due = {key: scope for key, scope in self._pending.items() if now - rung.get(key, 0.0) >= GAP_S}
                for key in due:
                    del self._pending[key]
                wait_s = GAP_S if self._pending else IDLE_S
            self._publish(due.items())
            rung = {key: when for key, when in rung.items() if now - when < GAP_S} | dict.fromkeys(due, now)

    def _publish(self, rings: Iterable[tuple[tuple[str, str], Mapping[str, str | int]]]) -> bool:
        try:
            with self._celery.producer_pool.acquire(block=True, timeout=5) as producer:
                for (verb, queue), scope in rings:
                    self._celery.send_task(
                        task_name(verb), kwargs=scope, queue=declare(queue), producer=producer, retry=False
                    )
            return True
        except (OperationalError, OSError) as error:
            # the sweep rings again for whatever is claimable; the caller's change is committed already
            log.warning("the broker did not take a ring: %s", error)
            return False
