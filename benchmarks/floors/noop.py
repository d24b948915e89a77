"""No-op Celery tasks through a running worker: ``celery.accumulate`` is built in and gives back its arguments."""

from __future__ import annotations

import time

import redis
from celery import Celery
from kombu import Queue

TASK = "celery.accumulate"


def run(app: Celery, broker: redis.Redis, queue: Queue, count: int, limit_s: float = 120) -> float:
    """Seconds from the first publish until the queue is empty and nothing is unacknowledged.

    ``broker`` must see the same keys as the app does: ``prefix`` is the app's own ``global_keyprefix``.
    """
    prefix = app.conf.broker_transport_options.get("global_keyprefix", "")
    with app.producer_pool.acquire(block=True) as producer:
        signature = app.signature(TASK, args=(1,))
        started = time.perf_counter()
        for _ in range(count):
            signature.apply_async(queue=queue, producer=producer)
        end = started + limit_s
        # the worker's acknowledgement is late, so an empty `unacked` means that the last one has run
        while broker.llen(prefix + queue.name) or broker.hlen(prefix + "unacked"):
            if time.perf_counter() > end:
                raise TimeoutError(f"{count} no-op tasks did not end within {limit_s} s")
            time.sleep(0.002)
        return time.perf_counter() - started
