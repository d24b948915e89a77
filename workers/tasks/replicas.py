"""The replica verbs as Celery tasks, one each, so that Flower shows what runs. A message names only where to look.

The result line names task id, replica and outcome, of each launch when there were several; no argument and no result
holds a secret.
"""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from app.domain.tasks import TaskKind
from app.doorbell.queues import task_name
from workers.bootstrap import runtime
from workers.launching import carry_out_launches
from workers.probing import carry_out_diagnose, carry_out_health
from workers.stopping import carry_out_stop

#: The verb's carrier takes the runtime and the pool (None: what is bound to this node).
CARRIERS: dict[TaskKind, Callable[..., str]] = {
    TaskKind.CREATE: carry_out_launches,
    TaskKind.RESTART: carry_out_launches,
    TaskKind.STOP: carry_out_stop,
    TaskKind.HEALTH: carry_out_health,
    TaskKind.DIAGNOSE: carry_out_diagnose,
}


def register(celery: Celery) -> None:
    """Add the verbs to ``celery``."""
    for kind, carrier in CARRIERS.items():
        celery.task(_task(carrier), name=task_name(kind), shared=False)


def _task(carrier: Callable[..., str]) -> Callable[..., str]:
    def carry_out(pool: str | None = None, node: str | None = None, **more: int) -> str:
        return carrier(runtime(), pool, **more)

    return carry_out
