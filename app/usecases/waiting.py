"""Waiting for a task: woken by a signal, and looking once a second anyway."""

from __future__ import annotations

import time
from typing import Any

from app.usecases import tasks
from app.usecases.context import Context
from app.usecases.signals import POLL_S


def wait_for_task(ctx: Context, task_id: str, timeout_s: float) -> dict[str, Any]:
    """The task as soon as it has ended, else as it is after ``timeout_s``. Raises NotFound."""
    deadline = time.monotonic() + timeout_s
    # subscribed before the first look: a change in between is not missed
    with ctx.signals.subscribe(f"task:{task_id}") as subscription:
        while True:
            task = tasks.get(ctx, task_id)
            left_s = deadline - time.monotonic()
            if task["finished_at"] is not None or left_s <= 0:
                return task
            subscription.wait(min(POLL_S, left_s))
