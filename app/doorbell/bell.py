"""Ringing: after the commit, without waiting, and never an error for the caller. A lost ring costs one sweep."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import OperationalError

from app.domain.tasks import LAUNCH_KINDS
from app.doorbell.queues import declare, task_name

log = logging.getLogger(__name__)

#: The ringing thread ends after this time without work and is started again by the next ring.
IDLE_S = 30.0
#: Least and most time between two rings of one verb on one queue; it doubles while rings follow each other. Publishing
#: costs the API more than answering a request does, and whoever hears a ring goes on by itself while there is more.
GAP_S = 0.005
WIDEST_GAP_S = 0.1
#: One bell for launches grows into 2 to the power of this many while there is more to do. A bell that follows another
#: grows less: those before it are still at work, and one that finds nothing costs a worker as much as a small task.
SPREAD = 3
#: How long closing waits for a ring under way.
CLOSE_S = 5.0


@dataclass(frozen=True)
class _Gap:
    """The silence after a ring."""

    length_s: float
    ends: float
    #: how much the next bell may grow
    spread: int

    @classmethod
    def after(cls, before: _Gap | None, now: float) -> _Gap:
        length_s = min(before.length_s * 2, WIDEST_GAP_S) if before else GAP_S
        return cls(length_s, now + length_s, max(0, (before.spread if before else SPREAD) - 1))

    @property
    def forgotten(self) -> float:
        """From here on a ring is the first of its kind again."""
        return self.ends + self.length_s


def _narrowed(verb: str, scope: Mapping[str, str | int], before: _Gap | None) -> Mapping[str, str | int]:
    return {**scope, "spread": before.spread} if before and verb in LAUNCH_KINDS else scope


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
            if start:
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                # under the lock: whoever closes must not find a thread that cannot be waited for yet
                self._thread.start()
        self._wake.set()

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
        gaps: dict[tuple[str, str], _Gap] = {}
        wait_s = IDLE_S
        while True:
            heard = self._wake.wait(wait_s)
            self._wake.clear()
            with self._lock:
                if self._closed or not (heard or self._pending):
                    self._running = False
                    return
                now = time.monotonic()
                due = {key: scope for key, scope in self._pending.items() if key not in gaps or gaps[key].ends <= now}
                for key in due:
                    del self._pending[key]
                wait_s = min((gaps[key].ends - now for key in self._pending), default=IDLE_S)
            self._publish([(key, _narrowed(key[0], scope, gaps.get(key))) for key, scope in due.items()])
            gaps = {key: gap for key, gap in gaps.items() if gap.forgotten > now}
            for key in due:
                gaps[key] = _Gap.after(gaps.get(key), now)

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
