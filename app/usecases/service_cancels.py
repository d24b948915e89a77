"""Asking for a service to end, and for what was asked of one to be taken back."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection

from app.db.repos import service_revisions, service_tasks
from app.db.repos import services as repo
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState
from app.errors import Conflict
from app.usecases import service_refs
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_asking import (
    ServiceOutcome,
    before_of,
    begin_task,
    changed,
    forgiven,
    reconciled,
    remember,
)
from app.usecases.service_effects import Effects, finish, tell


def cancel(ctx: Context, actor: Actor, ref: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Put all its replicas away, from every state; the record stays. ``already`` when nothing is left of it.

    Raises NotFound. Asked for twice, both get the same task.
    """

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = service_refs.lock(connection, ref)
        open_tasks = service_tasks.open_of(connection, [row.id])
        stopping = [task for task in open_tasks if task.kind == TaskKind.SERVICE_STOP]
        if stopping or row.ended_at is not None:
            task_id = stopping[0].id if stopping else service_tasks.last(connection, row.id, TaskKind.SERVICE_STOP)
            remember(connection, actor, idempotency, row.id, task_id)
            return ServiceOutcome(row.id, task_id, already=row.ended_at is not None), Effects()
        effects = Effects()
        finish(
            connection, open_tasks, TaskState.CANCELLED, effects, reason=Reason.CANCELLED,
            message="the service was cancelled", actor=actor.name,
        )  # fmt: skip
        task_id = _begin_stop(connection, actor, row)
        return reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, {})

    return changed(ctx, act)


def cancel_task(ctx: Context, actor: Actor, task_id: str, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Give an open task of a service up. A create's service is cancelled; after an update or a scale the service wants
    again what it wanted before. Raises NotFound, and Conflict for a stop and for a task that has ended."""

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = service_refs.lock(connection, service_tasks.service_of(connection, task_id) or task_id)
        found = [task for task in service_tasks.open_of(connection, [row.id]) if task.id == task_id]
        if not found:
            raise Conflict(f"Task {task_id} has ended; there is nothing left to cancel.")
        [task] = found
        if task.kind == TaskKind.SERVICE_STOP:
            raise Conflict(
                f"Task {task_id} puts service {row.name} away, which is not taken back. Make a new one:"
                f" `hostler service create {row.recipe}`."
            )
        effects = Effects()
        finish(
            connection, [task], TaskState.CANCELLED, effects, reason=Reason.CANCELLED, message="cancelled",
            actor=actor.name,
        )  # fmt: skip
        stop_id = _take_back(ctx, connection, actor, row, task)
        return reconciled(ctx, connection, actor, row.id, stop_id, idempotency, effects, {})

    return changed(ctx, act)


def _take_back(ctx: Context, connection: Connection, actor: Actor, row: Any, task: Any) -> str | None:
    """Want what was wanted before the task; the id of the stop that follows from it, if one does."""
    if task.kind == TaskKind.SERVICE_CREATE:
        return _begin_stop(connection, actor, row)
    before = task.arguments["from"]
    if task.kind == TaskKind.SERVICE_SCALE:
        repo.change(connection, row.id, count=before, reset_at=True, rollout=forgiven(row.rollout))
        tell(connection, row, "service_scaled", f"back to {before}", actor, task_id=task.id, count=before)
        return None
    found = service_revisions.read(connection, row.id, before)
    rollout = {"state": "cancelled", "from": before, "to": row.revision}
    columns = revisions_of.columns_of(ctx, found.spec) if found is not None else {}
    repo.change(connection, row.id, revision=before, reset_at=True, rollout=rollout, **columns)
    tell(connection, row, "service_rolled_back", f"back to revision {before}", actor, task_id=task.id, revision=before)
    return None


def _begin_stop(connection: Connection, actor: Actor, row: Any) -> str:
    task_id = secrets.token_hex(8)
    begin_task(connection, actor, row, TaskKind.SERVICE_STOP, task_id, phase=Phase.STOPPING)
    if row.desired_state == "running":
        repo.change(connection, row.id, desired_state="cancelled", reason=None, message="cancelled on request")
        tell(connection, row, "service_cancelled", "", actor, task_id=task_id)
    return task_id
