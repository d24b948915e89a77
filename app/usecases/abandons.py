"""Giving up what cannot be asked to end: its leases are returned without its having been seen gone, and it says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import drains, replicas, tasks
from app.db.repos.newer import knows_services
from app.db.repos.replicas import Move
from app.domain.lifecycle import TERMINAL, Reason, State
from app.domain.tasks import LIFECYCLE_KINDS, TaskState
from app.errors import Conflict, Forbidden, NotFound, Unavailable
from app.usecases import ends
from app.usecases import idempotency as remembered
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.outcomes import TaskOutcome, found

#: What cannot be asked, or was asked to end and was not seen gone.
_MAY_BE = (State.UNREACHABLE, State.STOPPING, *TERMINAL)

_OPEN = text(
    "SELECT a.id, a.name, a.node, a.told, a.backend FROM attempts a"
    " WHERE a.replica_id = :id AND a.released_at IS NULL FOR UPDATE"
)
_LEAVE = text(
    "UPDATE attempts SET left_behind_at = hostler_now(), ended_at = coalesce(ended_at, hostler_now()),"
    " message = CASE WHEN reason IS NULL THEN left(:message, 4000) ELSE message END,"
    " reason = coalesce(reason, :reason) WHERE id = :id"
)
_WANTED = text("UPDATE replicas SET desired_state = 'stopped', version = version + 1 WHERE id = :id")


def request_abandon(ctx: Context, actor: Actor, replica_id: str, idempotency: Idempotency | None = None) -> TaskOutcome:
    """Count the replica as gone though nobody saw that it is. What is left of it is ended when its place answers again.

    Raises Forbidden for all but admins, NotFound, and Conflict while it can be stopped.
    """
    if actor.role != "admin":
        told = "Needs a key of role admin: what is given up may still run."
        raise Forbidden(f"abandon: {told}", errors={"abandon": [told]})

    def act(connection: Connection) -> tuple[TaskOutcome, Any, list[str], list[str]]:
        if idempotency:
            before = remembered.claim(connection, actor, idempotency)
            if before is not None:
                return replace(found(before), already=True), None, [], []
        row, ended = _abandon(connection, actor, replica_id)
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"replica_id": replica_id})
        rung = ends.waiting_pools(connection, row)
        return TaskOutcome(replica_id, None, already=True), row, ended, rung

    outcome, row, ended, rung = ctx.database.change(act)
    if row is not None:
        ends.after_end(ctx, row, ended, rung)
    return outcome


def _abandon(connection: Connection, actor: Actor, replica_id: str) -> tuple[Any, list[str]]:
    """Returns the replica as it was, and the tasks that ended with it."""
    open_tasks, row = tasks.lock_with_replica(connection, replica_id, LIFECYCLE_KINDS)
    if row is None:
        raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
    if not knows_services(connection):
        raise Unavailable("The database was not migrated to this version yet. Run `hostler up`.", retry_after_s=5)
    state = State(row.state)
    attempt = connection.execute(_OPEN, {"id": replica_id}).first()
    if state in TERMINAL and (row.released_at is not None or attempt is None):
        return row, []
    if state not in _MAY_BE or attempt is None:
        raise Conflict(
            f"Replica {replica_id} is {state}: ask it to end first, with `hostler replica stop {replica_id} --force`."
            " Only what cannot be asked, or was asked and was not seen gone, can be given up."
        )
    why = _why(actor, attempt, row)
    ended = tasks.finish(
        connection,
        [task.id for task in open_tasks],
        TaskState.FAILED,
        actor=actor.name,
        reason=Reason.NODE_LOST,
        message=why,
    )
    if state in TERMINAL:
        # it says why it ended, and goes on to
        connection.execute(_WANTED, {"id": replica_id})
    else:
        _fail(connection, actor, row, state, why)
    connection.execute(_LEAVE, {"id": attempt.id, "message": why, "reason": Reason.NODE_LOST})
    drains.end(connection, replica_id)
    replicas.record_released(
        connection,
        replica_id,
        row.attempt,
        cause="given up without having been seen gone",
        actor=actor.name,
        message=why,
        request_id=actor.request_id,
    )
    return row, sorted(ended)


def _fail(connection: Connection, actor: Actor, row: Any, state: State, why: str) -> None:
    move = Move(
        row.id,
        row.attempt,
        (state, State.FAILED),
        cause="given up",
        actor=actor.name,
        reason=Reason.NODE_LOST,
        message=f"{row.message}; {why}" if row.message else why,
        request_id=actor.request_id,
        patch={"base_url": None, "desired_state": "stopped"},
    )
    replicas.record_moves(connection, [move])


def _why(actor: Actor, attempt: Any, row: Any) -> str:
    """Who gave it up, what may be left where, and how to look."""
    told = attempt.told or {}
    look = told.get("command")
    name = f"All of it there carries the name {attempt.name}"
    if told.get("seats"):
        # the job has a name of its own, and its other seats are other replicas'
        name = (
            f"It has seat {told.get('seat')} of {told['seats']} of job {told.get('job_id')}. Do not cancel that job: it"
            f" ends every replica on it. What is its own there is in the folder {attempt.name}"
        )
    return (
        f"given up by {actor.name} without having been seen gone: something of it may still run {_where(attempt, row)}."
        f" {name}{f'; look with `{look}`' if look else ''}. It is ended once that place answers again"
    )


def _where(attempt: Any, row: Any) -> str:
    options = row.spec["resolved"].get("backend_options") or {}
    behind = (options.get("ssh") or {}).get("host")
    if attempt.node:
        return f"on host {attempt.node} (backend {attempt.backend})"
    return f"where backend {attempt.backend} of pool {row.pool} runs things" + (
        f", by way of {behind}" if behind else ""
    )
