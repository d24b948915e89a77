"""Claiming stops, probes and diagnoses: the task and the replica it is about, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from app.db.repos import tasks
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState
from app.usecases.context import Context

#: What a worker needs of a replica and its open attempt (``attempt_id`` is NULL when there is none).
REPLICA_WITH_ATTEMPT = """
    r.id, r.state, r.reason, r.attempt, r.pool, r.backend, r.engine, r.server_mode, r.model_name, r.node, r.host,
    r.port, r.base_url, r.spec, r.grace_s, r.desired_state, r.check_failures, r.last_health, r.timestamps,
    r.diagnostics, r.deadline_at <= hostler_now() AS overdue, a.id AS attempt_id, a.name AS attempt_name, a.backend_ref,
    a.launching_at, a.stop_asked_at,
    CAST(extract(epoch FROM hostler_now() - a.stop_asked_at) AS float8) AS stopping_for_s
"""


@dataclass(frozen=True)
class Claim:
    """A task held by this worker until the lease runs out."""

    task_id: str
    lease_token: str
    kind: str
    arguments: Mapping[str, Any]
    request_id: str
    row: Any


def claim(ctx: Context, kind: TaskKind, *, pool: str | None, worker: str, phase: Phase) -> Claim | None:
    """The oldest due task of that kind in ``pool`` (None: bound to this node); None when there is none."""
    with ctx.database.begin() as connection:
        task = tasks.claim_other(
            connection,
            kind=kind,
            pool=pool,
            node=ctx.settings.node_name,
            worker=worker,
            lease_s=ctx.settings.lease_s,
            phase=phase,
        )
        if task is None:
            return None
        row = connection.execute(
            text(
                f"SELECT {REPLICA_WITH_ATTEMPT} FROM replicas r"
                " LEFT JOIN attempts a ON a.replica_id = r.id AND a.released_at IS NULL WHERE r.id = :id"
            ),
            {"id": task.replica_id},
        ).one()
    return Claim(task.id, task.lease_token, task.kind, task.arguments, task.request_id, row)


def renew(ctx: Context, task_id: str, lease_token: str, lease_s: float) -> bool:
    """Hold on to a task for another ``lease_s`` seconds; False when somebody else has it."""
    with ctx.database.begin() as connection:
        return tasks.renew(connection, task_id, lease_token, lease_s)


def leave(ctx: Context, held: Claim, phase: Phase) -> None:
    """Let go of it, still running: the sweep carries it on and finishes it."""
    with ctx.database.begin() as connection:
        tasks.set_phase(connection, held.task_id, held.lease_token, phase, release=True)


def put_back(ctx: Context, held: Claim, delay_s: float) -> None:
    """Queue it again, due in ``delay_s``."""
    with ctx.database.begin() as connection:
        tasks.put_back(connection, held.task_id, held.lease_token, delay_s=delay_s)


def finish(
    ctx: Context,
    held: Claim,
    state: TaskState,
    *,
    result: dict[str, Any] | None = None,
    reason: Reason | None = None,
    message: str = "",
) -> bool:
    """End it, if it is still held. False: it was cancelled or taken by somebody else."""
    with ctx.database.begin() as connection:
        if not tasks.set_phase(connection, held.task_id, held.lease_token, Phase.DONE):
            return False
        tasks.finish(connection, [held.task_id], state, reason=reason, message=message, result=result)
    ctx.notify("events", f"task:{held.task_id}")
    return True
