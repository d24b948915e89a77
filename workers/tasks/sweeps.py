"""What beat and the agent ring for: the repair sweep, services, and the canary that proves a worker hears."""

from __future__ import annotations

import os

from celery import Celery

from app.usecases import presence, reconciling, sweeps
from workers.bootstrap import process_of, runtime, worker_id


def register(celery: Celery) -> None:
    """Add them to ``celery``."""
    celery.task(sweep, name="hostler.sweep", shared=False)
    celery.task(reconcile, name="hostler.reconcile", shared=False)
    celery.task(canary, name="hostler.canary", shared=False)


def sweep() -> str:
    """This tick of the repair sweep, unless somebody was faster."""
    result = sweeps.sweep(runtime().ctx, runtime().id)
    return "somebody else swept" if result is None else f"outcome={result}"


def reconcile() -> str:
    """Services whose replicas changed, or whose time has come, brought on; those that somebody is at are theirs."""
    return f"outcome={reconciling.sweep(runtime().ctx)} looked at"


def canary(node: str) -> str:
    """Stamp the worker whose child this is: messages reach it."""
    here = runtime()
    parent = worker_id(here.settings.node_name, here.role, os.getppid())
    presence.record_consumed(here.ctx, process_of(parent))
    return f"outcome=heard on {node}"
