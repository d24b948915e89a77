"""Asking for more or fewer replicas of a service."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection

from app.db.repos import service_revisions, service_tasks
from app.db.repos import services as repo
from app.domain.tasks import TaskKind
from app.usecases import reconciling
from app.usecases import service_revisions as revisions_of
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.service_asking import (
    ServiceOutcome,
    before_of,
    begin_task,
    changed,
    checked_count,
    forgiven,
    lock_running,
    reconciled,
    remember,
    supersede,
)
from app.usecases.service_effects import Effects, tell


def scale(ctx: Context, actor: Actor, ref: str, count: int, idempotency: Idempotency | None = None) -> ServiceOutcome:
    """Ask for ``count`` replicas; what failed too often is tried again. ``already`` when nothing is to be done.

    Raises NotFound, InvalidConfig, ModelForbidden, and Conflict for a service that was cancelled.
    """
    checked_count(count)
    loads = reconciling.load_of(ctx)

    def act(connection: Connection) -> tuple[ServiceOutcome, Effects]:
        before = before_of(connection, actor, idempotency)
        if before is not None:
            return before, Effects()
        row = lock_running(connection, actor, ref, "scaled")
        revisions_of.check_count(service_revisions.read(connection, row.id, row.revision), count)
        if row.count == count and not row.rollout.get("given_up") and not row.rollout.get("refused"):
            # what is asked for is on its way already, or there
            task_id = next((task.id for task in service_tasks.open_of(connection, [row.id])), None)
            remember(connection, actor, idempotency, row.id, task_id)
            return ServiceOutcome(row.id, task_id, already=task_id is None), Effects()
        effects = Effects()
        supersede(connection, row, (TaskKind.SERVICE_SCALE,), f"scaled to {count} instead", actor, effects)
        task_id = secrets.token_hex(8)
        begin_task(connection, actor, row, TaskKind.SERVICE_SCALE, task_id, count=count, from_=row.count)
        repo.change(connection, row.id, count=count, reset_at=True, rollout=forgiven(row.rollout))
        tell(
            connection, row, "service_scaled", f"from {row.count} to {count}", actor, task_id=task_id, count=count,
            before=row.count,
        )  # fmt: skip
        return reconciled(ctx, connection, actor, row.id, task_id, idempotency, effects, loads)

    return changed(ctx, act)
