"""Belts: rows that nobody would ever move again. Each would be a defect of ours, and none may last longer than a sweep.

What somebody holds, or is about to claim, is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas, tasks
from app.domain.lifecycle import Reason, State
from app.domain.tasks import TaskKind, TaskState
from app.usecases.context import Context

BATCH = 500
#: What changed in the last moments may be half-way between two steps of somebody at work.
SETTLED_S = 5.0

_UNWATCHED = text(
    """
UPDATE replicas r SET next_check_at = hostler_now() WHERE r.id IN (
    SELECT r.id FROM replicas r
    WHERE r.released_at IS NULL AND r.next_check_at IS NULL AND r.state <> 'pending'
      AND r.updated_at < hostler_now() - make_interval(secs => :settled_s)
      AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.replica_id = r.id AND t.kind IN ('create', 'stop', 'restart')
          AND (t.state = 'queued' OR t.lease_token IS NOT NULL))
    LIMIT :limit FOR UPDATE OF r SKIP LOCKED)
RETURNING r.id, r.node
"""
)
_DECIDED = text(
    """
SELECT t.id, t.kind, r.id AS replica_id, r.state, r.reason, r.message FROM tasks t
JOIN replicas r ON r.id = t.replica_id
WHERE t.state IN ('queued', 'running') AND t.lease_token IS NULL AND t.attempt <= r.attempt
  AND r.updated_at < hostler_now() - make_interval(secs => :settled_s)
  AND ((t.kind = 'stop' AND r.released_at IS NOT NULL)
    OR (t.kind IN ('create', 'restart') AND r.state IN ('ready', 'unhealthy', 'stopped', 'failed')))
ORDER BY t.id LIMIT :limit FOR UPDATE OF t SKIP LOCKED
"""
)
_ABANDONED = text(
    """
SELECT r.id, r.attempt, r.state FROM replicas r
WHERE r.state IN ('pending', 'scheduling', 'preparing') AND r.released_at IS NULL
  AND r.updated_at < hostler_now() - make_interval(secs => :settled_s)
  AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.replica_id = r.id AND t.state IN ('queued', 'running')
      AND t.kind IN ('create', 'stop', 'restart'))
ORDER BY r.id LIMIT :limit FOR UPDATE OF r SKIP LOCKED
"""
)


def free_stuck(ctx: Context) -> int:
    """All of it, once; returns how many rows were freed."""
    return watch_unwatched(ctx) + finish_decided(ctx) + fail_abandoned(ctx) + ctx.database.change(leases.free_ownerless)


def watch_unwatched(ctx: Context) -> int:
    """Replicas that are not gone and that nobody would look at again: unreleased ones, above all."""
    values = {"settled_s": SETTLED_S, "limit": BATCH}
    found = ctx.database.change(lambda connection: list(connection.execute(_UNWATCHED, values)))
    if found:
        ctx.notify(*{f"due:{row.node or ''}" for row in found})
    return len(found)


def finish_decided(ctx: Context) -> int:
    """Open tasks whose replica has what they ask for, or can never have it."""
    ended = ctx.database.change(_finish_decided)
    if ended:
        ctx.notify("events", *(f"task:{one}" for one in ended))
    return len(ended)


def fail_abandoned(ctx: Context) -> int:
    """Launches that hold nothing outside yet and that no task carries any more."""
    moved = ctx.database.change(_fail_abandoned)
    if moved:
        ctx.notify("events", *(f"replica:{one}" for one in moved))
    return len(moved)


def _finish_decided(connection: Connection) -> list[str]:
    found = list(connection.execute(_DECIDED, {"settled_s": SETTLED_S, "limit": BATCH}))
    ended: list[str] = []
    for task in found:
        state, reason, message = _outcome(task)
        ended += tasks.finish(connection, [task.id], state, reason=reason, message=message)
    return ended


def _outcome(task: Any) -> tuple[TaskState, Reason | None, str]:
    state = State(task.state)
    if task.kind == TaskKind.STOP:
        return TaskState.SUCCEEDED, None, f"replica {task.replica_id} was seen gone"
    if state in (State.READY, State.UNHEALTHY):
        return TaskState.SUCCEEDED, None, f"replica {task.replica_id} is {state}"
    if state is State.STOPPED:
        return TaskState.CANCELLED, Reason.CANCELLED, f"replica {task.replica_id} was stopped"
    return TaskState.FAILED, Reason(task.reason), task.message


def _fail_abandoned(connection: Connection) -> Sequence[str]:
    found = connection.execute(_ABANDONED, {"settled_s": SETTLED_S, "limit": BATCH})
    message = "no task carried its launch any more; create it again, and please report this"
    moves = [
        replicas.Move(
            row.id,
            row.attempt,
            (State(row.state), State.FAILED),
            cause="abandoned",
            reason=Reason.BACKEND_ERROR,
            message=message,
            next_check_s=0,
        )
        for row in found
    ]
    return sorted(replicas.record_moves(connection, moves))
