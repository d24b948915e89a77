"""Asking for a look at a replica now: a real probe, or the diagnostics once more."""

from __future__ import annotations

import json
import secrets
from typing import Any

from sqlalchemy import text

from app.db.repos import replicas
from app.domain.lifecycle import SERVING, TERMINAL, State
from app.domain.tasks import TaskKind
from app.doorbell.queues import queue_for
from app.errors import Conflict, NotFound
from app.usecases import idempotency as remembered
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.outcomes import TaskOutcome, found


def request_health(
    ctx: Context,
    actor: Actor,
    replica_id: str,
    timeout_s: float = 120,
    poll_interval_s: float = 5,
    idempotency: Idempotency | None = None,
) -> TaskOutcome:
    """Ask for a probe now, repeated every ``poll_interval_s`` until healthy or ``timeout_s``.

    Raises NotFound, or Conflict when the replica has ended.
    """
    arguments = {"timeout_s": timeout_s, "poll_interval_s": poll_interval_s}
    return _request(ctx, actor, replica_id, TaskKind.HEALTH, arguments, timeout_s, idempotency)


def request_diagnose(
    ctx: Context, actor: Actor, replica_id: str, idempotency: Idempotency | None = None
) -> TaskOutcome:
    """Ask for the diagnostics again. Raises NotFound, or Conflict when the replica does not serve."""
    return _request(ctx, actor, replica_id, TaskKind.DIAGNOSE, {}, None, idempotency)


def _request(
    ctx: Context,
    actor: Actor,
    replica_id: str,
    kind: TaskKind,
    arguments: dict[str, Any],
    timeout_s: float | None,
    idempotency: Idempotency | None,
) -> TaskOutcome:
    task_id = secrets.token_hex(8)
    with ctx.database.begin() as connection:
        if idempotency:
            before = remembered.claim(connection, actor, idempotency)
            if before is not None:
                return found(before)
        row = replicas.read(connection, replica_id)
        if row is None:
            raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
        _check_state(kind, replica_id, State(row.state))
        connection.execute(
            text(
                "INSERT INTO tasks (id, kind, priority, pool, node, replica_id, attempt, owner, request_id, arguments,"
                " deadline_at) VALUES (:id, :kind, 0, :pool, :node, :replica_id, :attempt, :owner, :request_id,"
                " CAST(:arguments AS jsonb), hostler_now() + make_interval(secs => CAST(:timeout_s AS float8)))"
            ),
            {
                "id": task_id,
                "kind": str(kind),
                "pool": row.pool,
                "node": row.node,
                "replica_id": replica_id,
                "attempt": row.attempt,
                "owner": actor.key_id,
                "request_id": actor.request_id,
                "arguments": json.dumps(arguments),
                "timeout_s": timeout_s,
            },
        )
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"replica_id": replica_id, "task_id": task_id})
    scope = {"node": row.node} if row.node else {"pool": row.pool}
    ctx.doorbell.ring(kind, queue_for(kind, row.pool, row.node), **scope)
    return TaskOutcome(replica_id, task_id)


def _check_state(kind: TaskKind, replica_id: str, state: State) -> None:
    if state in TERMINAL:
        raise Conflict(f"Replica {replica_id} is {state}; there is nothing to probe. Restart it first.")
    if kind is TaskKind.DIAGNOSE and state not in SERVING:
        raise Conflict(
            f"Replica {replica_id} is {state}; diagnostics need a ready one."
            f" Wait with `hostler replica wait {replica_id}`."
        )
