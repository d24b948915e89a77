"""No-op Celery tasks through a running worker: ``celery.accumulate`` is built in and gives back its arguments."""

from __future__ import annotations

import time

import redis
from celery import Celery

from app.db.identity import namespace
from app.doorbell.celery import make_celery
from app.doorbell.queues import declare
from benchmarks.stack import Stack

TASK = "celery.accumulate"


class Noops:
    """Publishes to one queue of a stack, as the stack's own processes do, and sees when all of it is done."""

    def __init__(self, stack: Stack, queue: str) -> None:
        name = namespace(stack.settings)
        self._celery: Celery = make_celery(stack.settings, stack.broker_url, name)
        self._queue = declare(queue)
        self._prefix = f"hostler:{name}:"
        self._broker = redis.Redis(unix_socket_path=stack.broker_url.removeprefix("redis+socket://"))

    def publish(self, count: int) -> None:
        with self._celery.producer_pool.acquire(block=True) as producer:
            signature = self._celery.signature(TASK, args=(1,))
            for _ in range(count):
                signature.apply_async(queue=self._queue, producer=producer)

    def wait_done(self, limit_s: float = 120) -> None:
        """Acknowledgements are late: with the queue empty and none unacknowledged, the last one has run."""
        end = time.perf_counter() + limit_s
        while self._broker.llen(self._prefix + self._queue.name) or self._broker.hlen(self._prefix + "unacked"):
            if time.perf_counter() > end:
                raise TimeoutError(f"the no-op tasks did not end within {limit_s} s")
            time.sleep(0.002)

    def close(self) -> None:
        self._celery.close()
        self._broker.close()
