"""The Celery application of the worker processes (``celery -A workers.celery``). Nothing connects at import."""

from __future__ import annotations

import logging
import threading

import billiard.pool
from celery import Celery, signals

from app.db.identity import namespace
from app.doorbell.celery import make_celery
from app.doorbell.queues import STACK_QUEUE, declare
from app.settings import Settings
from app.stack.urls import broker_url
from workers.serving import ServePools
from workers.tasks import replicas as replica_tasks
from workers.tasks import sweeps as sweep_tasks

log = logging.getLogger(__name__)

#: How often, 0.1 s apart, a child that ends waits for its parent to take its last result. A parent that shuts down may
#: take none any more, which by default holds up the end for 30 s; our results say nothing that Postgres does not.
LAST_RESULT_TRIES = 10


def make() -> Celery:
    """The application with its tasks, its beat schedule and the step that follows the pools."""
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_RESULT_TRIES
    settings = Settings.load()
    celery = make_celery(settings, broker_url(settings), namespace(settings))
    replica_tasks.register(celery)
    sweep_tasks.register(celery)
    celery.conf.beat_schedule = {
        name: {
            "task": task,
            "schedule": settings.sweep_interval_s,
            # a tick that nobody took in time is the next one's work
            "options": {"queue": declare(STACK_QUEUE), "expires": settings.sweep_interval_s * 3},
        }
        for name, task in (("repair", "hostler.sweep"), ("services", "hostler.reconcile"))
    }
    # in memory: a schedule file is one more thing to be half written
    celery.conf.beat_scheduler = "celery.beat:Scheduler"
    celery.steps["consumer"].add(ServePools)
    return celery


@signals.worker_process_init.connect
def _forget_parent_connections(**_: object) -> None:
    # the runtime is made anew by pid; this only says so early, so that a fork's first task is not slower
    from workers.bootstrap import runtime

    made = runtime()
    if made.role == "worker":
        # beside the first task: a child that starts slowly, because its database does, would be taken for dead
        threading.Thread(target=made.rehearse, name="rehearse", daemon=True).start()


@signals.setup_logging.connect
def _keep_logging(**_: object) -> None:
    """Connected so that Celery leaves logging to ``workers.run``."""
