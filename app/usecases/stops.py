"""Asking a replica to stop: a wish in the database, from every state, that cancels an open launch in one go."""

from __future__ import annotations

import json
import secrets
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import drains as drains_repo
from app.db.repos import replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import LAUNCHING, SERVING, TERMINAL, Reason, State
from app.domain.tasks import LAUNCH_KINDS, LIFECYCLE_KINDS, TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.errors import NotFound
from app.usecases import drains, ends
from app.usecases import idempotency as remembered
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.outcomes import TaskOutcome, found

#: After this much grace a stop kills whatever is left.
DEFAULT_GRACE_S = 30


def request_stop(
    ctx: Context,
    actor: Actor,
    replica_id: str,
    force: bool = False,
    grace_s: int | None = None,
    idempotency: Idempotency | None = None,
    cause: str = "stop requested",
    drain_s: float | None = None,
) -> TaskOutcome:
    """Accept a stop. ``already`` when the replica has ended and is gone. Raises NotFound.

    A replica that is routed first gets ``drain_s`` (None: what was said at its create, else the setting) to finish what
    is in flight. ``force`` gives it none.
    """

    def act(connection: Connection) -> tuple[TaskOutcome, str | None, str]:
        if idempotency:
            before = remembered.claim(connection, actor, idempotency)
            if before is not None:
                return found(before), None, ""
        asked = stop(ctx, connection, actor, replica_id, force, grace_s, drain_s, cause)
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"replica_id": replica_id, "task_id": asked[0].task_id})
        return asked

    # of two stops at once the second finds the first one's task, instead of telling its user that they collided
    outcome, node, pool = ctx.database.change(act)
    if not outcome.already and not outcome.replayed:
        scope = {"node": node} if node else {"pool": pool}
        if outcome.freed:
            ctx.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, pool, None), pool=pool)
        else:
            ctx.doorbell.ring(TaskKind.STOP, queue_for(TaskKind.STOP, pool, node), **scope)
        ctx.notify("events", f"replica:{replica_id}", f"task:{outcome.task_id}", f"due:{node or ''}")
    return outcome


def stop(
    ctx: Context,
    connection: Connection,
    actor: Actor,
    replica_id: str,
    force: bool,
    grace_s: int | None,
    drain_s: float | None,
    cause: str,
) -> tuple[TaskOutcome, str | None, str]:
    """What ``request_stop`` does, inside a transaction: (outcome, node, pool) to ring for after the commit.

    Raises NotFound, Collided. Who stops several in one transaction locks them all first (``tasks.lock_all``).
    """
    open_tasks, row = tasks.lock_with_replica(connection, replica_id, LIFECYCLE_KINDS)
    if row is None:
        raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
    grace = 0 if force else DEFAULT_GRACE_S if grace_s is None else grace_s
    stopping = [task for task in open_tasks if task.kind == TaskKind.STOP]
    if stopping:
        _hurry(connection, row, stopping[0], force, grace_s, drain_s)
        return TaskOutcome(replica_id, stopping[0].id), row.node, row.pool
    if row.state in TERMINAL and row.released_at is not None:
        return TaskOutcome(replica_id, _last_stop(connection, replica_id), already=True), row.node, row.pool
    launching = [task.id for task in open_tasks if task.kind in LAUNCH_KINDS]
    tasks.finish(
        connection,
        launching,
        TaskState.CANCELLED,
        actor=actor.name,
        reason=Reason.CANCELLED,
        message=cause,
    )
    task_id = _insert_stop_task(connection, actor, row, force, grace)
    freed = _set_off(connection, actor, row, task_id, grace, cause, cancelled=bool(launching))
    _drain(connection, row, 0 if force else drains.seconds_of(ctx.settings, row.spec, drain_s))
    return TaskOutcome(replica_id, task_id, freed=freed), row.node, row.pool


def _set_off(
    connection: Connection, actor: Actor, row: Any, task_id: str, grace_s: int, cause: str, *, cancelled: bool
) -> bool:
    """Its first step. True when that was all, because nothing was launched."""
    reason = Reason.CANCELLED if cancelled else None
    common: dict[str, Any] = {
        "cause": cause,
        "actor": actor.name,
        "reason": reason,
        "task_id": task_id,
        "request_id": actor.request_id,
        "patch": {"desired_state": "stopped", "grace_s": grace_s},
    }
    state = State(row.state)
    if state is State.PENDING or (state in LAUNCHING and ends.never_launched(connection, row.id, row.attempt)):
        # no backend was asked for it, and none will be: it is gone at once, whether or not its place can be asked; why
        # that took so long stays its message
        path = (state, State.STOPPED) if state is State.PENDING else (state, State.STOPPING, State.STOPPED)
        replicas.record_moves(connection, [Move(row.id, row.attempt, path, message=row.message, **common)])
        replicas.record_released(connection, row.id, row.attempt)
        tasks.finish(connection, [task_id], TaskState.SUCCEEDED, actor=actor.name, message="nothing was launched")
        return True
    if state is State.STOPPING or state in TERMINAL:
        connection.execute(
            text(
                "UPDATE replicas SET desired_state = 'stopped', grace_s = :grace_s, next_check_at = hostler_now(),"
                " version = version + 1 WHERE id = :id"
            ),
            {"id": row.id, "grace_s": grace_s},
        )
    else:
        replicas.record_moves(
            connection, [Move(row.id, row.attempt, (state, State.STOPPING), next_check_s=1.0, **common)]
        )
    return False


def _drain(connection: Connection, row: Any, seconds: float) -> None:
    if row.state in (*SERVING, State.UNREACHABLE):
        drains_repo.begin(connection, row.id, row.attempt, seconds)
    elif row.state == State.STOPPING and seconds > 0:
        # in the middle of a restart
        drains_repo.keep(connection, row.id)
    elif row.state == State.STOPPING:
        drains_repo.end(connection, row.id)


def _hurry(
    connection: Connection, row: Any, task: Any, force: bool, grace_s: int | None, drain_s: float | None
) -> None:
    if force or drain_s is not None:
        drains_repo.shorten(connection, row.id, 0 if force else drain_s or 0)
    if not force and grace_s is None:
        return
    wanted = 0 if force else grace_s
    connection.execute(
        text(
            "UPDATE replicas SET grace_s = least(grace_s, :grace_s), next_check_at = hostler_now(),"
            " version = version + 1 WHERE id = :id"
        ),
        {"id": row.id, "grace_s": wanted},
    )
    connection.execute(
        text("UPDATE tasks SET arguments = arguments || CAST(:more AS jsonb), version = version + 1 WHERE id = :id"),
        {"id": task.id, "more": json.dumps({"force": force or task.arguments.get("force", False)})},
    )


def _insert_stop_task(connection: Connection, actor: Actor, row: Any, force: bool, grace_s: int) -> str:
    task_id = secrets.token_hex(8)
    connection.execute(
        text(
            "INSERT INTO tasks (id, kind, priority, pool, node, replica_id, attempt, owner, request_id, arguments)"
            " VALUES (:id, 'stop', 0, :pool, :node, :replica_id, :attempt, :owner, :request_id,"
            " CAST(:arguments AS jsonb))"
        ),
        {
            "id": task_id,
            "pool": row.pool,
            "node": row.node,
            "replica_id": row.id,
            "attempt": row.attempt,
            "owner": actor.key_id,
            "request_id": actor.request_id,
            "arguments": json.dumps({"force": force, "grace_s": grace_s}),
        },
    )
    return task_id


def _last_stop(connection: Connection, replica_id: str) -> str | None:
    query = text("SELECT id FROM tasks WHERE replica_id = :id AND kind = 'stop' ORDER BY seq DESC LIMIT 1")
    return connection.execute(query, {"id": replica_id}).scalar()
