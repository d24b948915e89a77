"""The Celery application: every setting with its reason. Nothing connects at import."""

from __future__ import annotations

from celery import Celery

from app.settings import Settings

#: Seconds after which a running task is killed; every task is short, so this only ends what is broken.
HARD_LIMIT_S = 300
SOFT_LIMIT_S = 270
#: Redis gives an unacknowledged message to somebody else after this; longer than any task may run.
VISIBILITY_S = 900
#: Longest wait for Redis's answer; the longest command, BRPOP, answers within a second. After connections were cut
#: kombu may read an answer to what it never sent, and the worker hears nothing for as long as this allows.
ANSWER_S = 5


def make_celery(settings: Settings, broker_url: str, namespace: str) -> Celery:
    """An application for the stack ``namespace``; two stacks on one broker do not hear each other."""
    celery = Celery("hostler", broker=broker_url, set_as_current=False)
    celery.conf.update(
        # a task is a row in Postgres; results in the broker vanish and unknown ids read PENDING
        task_ignore_result=True,
        result_backend=None,
        # acknowledged after the work: a worker that dies leaves the bell to somebody else
        task_acks_late=True,
        # but a message that kills its worker each time must not come back for ever
        task_reject_on_worker_lost=False,
        task_time_limit=HARD_LIMIT_S,
        task_soft_time_limit=SOFT_LIMIT_S,
        # a typo must not become a queue that nobody reads
        task_create_missing_queues=False,
        task_queues=[],
        task_default_queue="stack",
        # one message per process: the others stay for workers that are free
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # a child that leaks is replaced before it matters
        worker_max_tasks_per_child=200,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # nothing is scheduled in Celery; should something be, it may not pile up in one worker
        worker_eta_task_limit=50,
        worker_soft_shutdown_timeout=30,
        worker_enable_soft_shutdown_on_idle=True,
        worker_send_task_events=settings.task_events,
        # Flower shows what was received and done; that it was sent costs the sender as much again as sending it
        task_send_sent_event=False,
        # never anything but JSON is deserialised
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        # a broker that is away for an hour is still the broker
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(broker_url, namespace),
        broker_pool_limit=4,
        enable_utc=True,
        timezone="UTC",
    )
    if not broker_url.startswith("redis"):
        celery.conf.task_queue_max_priority = None
    return celery


def _transport_options(broker_url: str, namespace: str) -> dict[str, object]:
    if not broker_url.startswith("redis"):
        return {}
    options: dict[str, object] = {
        "visibility_timeout": VISIBILITY_S,
        "socket_timeout": ANSWER_S,
        "health_check_interval": 10,
        "global_keyprefix": f"hostler:{namespace}:",
    }
    # a Unix socket has no keepalive, and redis-py refuses the option there
    if not broker_url.startswith("redis+socket"):
        options["socket_keepalive"] = True
    return options
