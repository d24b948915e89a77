"""Which queues a worker listens to: read at start and every few seconds, so that a new pool is served at once."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery import bootsteps
from celery.worker import state

from app.db.engine import Database
from app.doorbell.queues import STACK_QUEUE, node_queue, pool_queue
from app.errors import Collided, Unavailable
from app.settings import Settings
from app.stack.urls import database_url
from app.usecases import presence
from app.usecases.context import Context
from workers.bootstrap import worker_id

log = logging.getLogger(__name__)

REFRESH_S = 3.0
#: Canaries come every few seconds; a worker that saw none for so long has lost its broker without noticing.
DEAF_S = 90.0


def wanted_queues(node: str, pools: list[str], *, control: bool) -> set[str]:
    """The queues of one worker process."""
    names = {pool_queue(pool, control=control) for pool in pools} | {node_queue(node, control=control)}
    return names | {STACK_QUEUE} if control else names


class ServePools(bootsteps.StartStopStep):
    """A consumer step: adds and cancels queues itself, without any broadcast."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._settings = Settings.load()
        self._role = os.environ.get("HOSTLER_ROLE", "worker")
        self._id = worker_id(self._settings.node_name, self._role, os.getpid())
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        self._refresh(parent)
        self._timer = parent.timer.call_repeatedly(REFRESH_S, self._refresh, (parent,))

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refresh(self, consumer: Any) -> None:
        # in the consumer's own thread, because its channel is not for two; a fresh connection, closed before any
        # fork can happen here, so that no child inherits it
        ctx = Context(self._settings, Database(database_url(self._settings), pool_size=1))
        try:
            pools = presence.pools(ctx)
            wanted = wanted_queues(self._settings.node_name, pools, control=self._role == "worker-control")
            have = {queue.name for queue in consumer.task_consumer.queues}
            for name in sorted(wanted - have):
                consumer.add_task_queue(name, exchange=name, exchange_type="direct", routing_key=name)
            for name in sorted(have - wanted):
                consumer.cancel_task_queue(name)
            silent_s = presence.heartbeat_worker(
                ctx, self._id, self._role, os.getpid(), sorted(wanted), consumer.pool.num_processes
            )
        except (Collided, Unavailable) as error:
            log.warning("queues were not refreshed: %s", error)
            return
        finally:
            ctx.close()
        if silent_s > DEAF_S:
            log.error("no canary heard for %.0f s: the connection is deaf; leaving to be started again", silent_s)
            state.should_terminate = 1
