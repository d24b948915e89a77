"""Asking for a new attempt of the same spec: the old one is seen gone first, then the next one queues."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import drains as drains_repo
from app.db.repos import replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import TERMINAL, State
from app.domain.tasks import LIFECYCLE_KINDS, TaskKind
from app.doorbell.queues import queue_for
from app.errors import Conflict, NotFound
from app.usecases import drains
from app.usecases import idempotency as remembered
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.outcomes import TaskOutcome, found


def request_restart(ctx: Context, actor: Actor, replica_id: str, idempotency: Idempotency | None = None) -> TaskOutcome:
    """Accept a restart. Raises NotFound, or Conflict while a create, stop or restart is open."""
    task_id = secrets.token_hex(8)

    def act(connection: Connection) -> Any:
        if idempotency:
            before = remembered.claim(connection, actor, idempotency)
            if before is not None:
                return found(before)
        row = _restart(connection, actor, replica_id, task_id)
        if State(row.state) not in TERMINAL:
            drains_repo.begin(connection, replica_id, row.attempt, drains.seconds_of(ctx.settings, row.spec))
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"replica_id": replica_id, "task_id": task_id})
        return row

    row = ctx.database.change(act)
    if isinstance(row, TaskOutcome):
        return row
    if State(row.state) in TERMINAL:
        ctx.doorbell.ring(TaskKind.RESTART, queue_for(TaskKind.RESTART, row.pool, None), pool=row.pool)
    ctx.notify("events", f"replica:{replica_id}", f"task:{task_id}", f"due:{row.node or ''}")
    return TaskOutcome(replica_id, task_id)


def _restart(connection: Connection, actor: Actor, replica_id: str, task_id: str) -> Any:
    """Write the task and the first step; returns the replica as it was."""
    open_tasks, row = tasks.lock_with_replica(connection, replica_id, LIFECYCLE_KINDS)
    if row is None:
        raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
    if open_tasks:
        raise Conflict(
            f"A {open_tasks[0].kind} of replica {replica_id} is open (task {open_tasks[0].id}). Wait for it with"
            f" `hostler task wait {open_tasks[0].id}`, then restart.",
            extra={"task_id": open_tasks[0].id},
        )
    state = State(row.state)
    if state is State.STOPPING or (state in TERMINAL and row.released_at is None):
        raise Conflict(
            f"Replica {replica_id} is {state} and its last attempt is not gone yet. Try again once"
            f" `hostler replica get {replica_id}` shows no pending cleanup."
        )
    attempt = row.attempt + 1
    connection.execute(
        text(
            "INSERT INTO tasks (id, kind, priority, pool, replica_id, attempt, owner, request_id)"
            " VALUES (:id, 'restart', :priority, :pool, :replica_id, :attempt, :owner, :request_id)"
        ),
        {
            "id": task_id,
            "priority": row.priority,
            "pool": row.pool,
            "replica_id": replica_id,
            "attempt": attempt,
            "owner": actor.key_id,
            "request_id": actor.request_id,
        },
    )
    if state in TERMINAL:
        connection.execute(text("UPDATE replicas SET released_at = NULL WHERE id = :id"), {"id": replica_id})
        path, patch = (state, State.PENDING), {"attempt": attempt, "desired_state": "running", "node": None}
    else:
        path, patch = (state, State.STOPPING), {"desired_state": "running"}
    replicas.record_moves(
        connection,
        [
            Move(
                replica_id,
                row.attempt,
                path,
                cause="restart requested",
                actor=actor.name,
                task_id=task_id,
                request_id=actor.request_id,
                next_check_s=0 if path[-1] is State.STOPPING else None,
                patch={**patch, "base_url": None, "host": None, "port": None, "diagnostics": None}
                if state in TERMINAL
                else patch,
            )
        ],
    )
    return row
