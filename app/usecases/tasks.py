"""Tasks as users see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.db.repos import replica_pages, tasks
from app.domain.lifecycle import Reason
from app.domain.tasks import ENDED, LAUNCH_KINDS, PROGRESS, SERVICE_KINDS, Phase, TaskKind, TaskState
from app.errors import Conflict, NotFound
from app.usecases import idempotency as remembered
from app.usecases import paging, services
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.stops import request_stop


def get(ctx: Context, task_id: str) -> dict[str, Any]:
    """One task. Raises NotFound."""
    with ctx.database.read() as connection:
        row = tasks.read(connection, task_id)
    if row is None:
        raise NotFound(f"There is no task {task_id}. See `hostler task list`.")
    return _body(row)


def list_tasks(
    ctx: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """A page, newest first: (tasks, total, next cursor)."""
    behind = paging.decode(cursor, (int,))
    with ctx.database.read() as connection:
        rows = replica_pages.task_page(connection, tasks.COLUMNS, filters, limit + 1, behind)
        total = replica_pages.total(connection, "tasks", filters)
    more = paging.encode((rows[limit - 1].seq,)) if len(rows) > limit else None
    return [_body(row) for row in rows[:limit]], total, more


def request_cancel(ctx: Context, actor: Actor, task_id: str, idempotency: Idempotency | None = None) -> dict[str, Any]:
    """Give a task up; what it began is taken back. A cancelled create or restart stops its replica, that of a service
    cancels the service, a cancelled update or scale goes back to what was before. Raises NotFound, Conflict."""
    task = get(ctx, task_id)
    if task["state"] == TaskState.CANCELLED:
        return task
    if task["state"] in ENDED:
        raise Conflict(f"Task {task_id} has {task['state']} already; there is nothing left to cancel.")
    if task["kind"] in SERVICE_KINDS:
        services.cancel_task(ctx, actor, task_id, idempotency)
        return get(ctx, task_id)
    if task["kind"] == TaskKind.STOP:
        raise Conflict(
            f"Task {task_id} is a stop; what is being put away is not kept. Restart the replica once it has stopped:"
            f" `hostler replica restart {task['replica_id']}`."
        )
    if task["kind"] in LAUNCH_KINDS:
        request_stop(ctx, actor, task["replica_id"], idempotency=idempotency, cause="task cancelled")
        return get(ctx, task_id)
    with ctx.database.begin() as connection:
        if idempotency and remembered.claim(connection, actor, idempotency) is not None:
            return task
        tasks.finish(
            connection, [task_id], TaskState.CANCELLED, actor=actor.name, reason=Reason.CANCELLED, message="cancelled"
        )
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"task_id": task_id})
    ctx.notify("events", f"task:{task_id}")
    return get(ctx, task_id)


def _body(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "phase": row.phase,
        "progress": _progress(row),
        "attempt": row.attempt,
        "claims": row.claims,
        "claimed_by": row.claimed_by,
        "pool": row.pool,
        "node": row.node,
        "owner": row.owner,
        "request_id": row.request_id,
        "reason": row.reason,
        "message": row.message,
        "result": row.result,
        "created_at": _iso(row.created_at),
        "started_at": _iso(row.started_at),
        "finished_at": _iso(row.finished_at),
        "replica_id": row.replica_id,
        "service_id": row.arguments.get("service_id"),
    }


def _progress(row: Any) -> int:
    """In percent: by its phase, or how many of a service's replicas have come as far as they should."""
    of = row.arguments.get("of")
    if row.kind not in SERVICE_KINDS or row.state in ENDED or not of:
        return PROGRESS[Phase(row.phase)]
    return min(99, 100 * int(row.arguments.get("done", 0)) // int(of))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
