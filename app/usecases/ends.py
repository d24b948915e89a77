"""How an attempt ends: failed with its reason, stopped when seen gone, or gone to make room for the next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import STOP_TROUBLE, TERMINAL, Reason, State
from app.domain.tasks import LAUNCH_KINDS, LIFECYCLE_KINDS, TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.usecases.context import Context


@dataclass(frozen=True)
class End:
    """How an attempt ended. ``log_tail`` is kept with it, so that it outlives the folder."""

    reason: Reason | None = None
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    log_tail: str = ""
    #: nothing is left of it
    gone: bool = False


def record_failed(
    ctx: Context,
    replica_id: str,
    attempt: int,
    state: State,
    end: End,
    *,
    fence: tuple[str, str] | None = None,
    diagnostics: Mapping[str, Any] | None = None,
) -> bool:
    """The attempt failed. Its open launch task fails with it; until it is gone the sweep keeps killing. One that its
    backend was never asked to launch is gone.

    ``fence`` is (task id, lease token) when a worker says so that holds the launch.
    """
    with ctx.database.begin() as connection:
        open_tasks = tasks.open_of(connection, replica_id, LAUNCH_KINDS)
        move = Move(
            replica_id,
            attempt,
            (state, State.FAILED),
            cause="observed",
            reason=end.reason,
            message=end.message,
            task_id=fence[0] if fence else (open_tasks[0].id if open_tasks else None),
            lease_token=fence[1] if fence else None,
            next_check_s=0,
            patch={"base_url": None} | ({"diagnostics": diagnostics} if diagnostics is not None else {}),
        )
        if not replicas.record_moves(connection, [move]):
            return False
        _record_end(connection, replica_id, attempt, end)
        ended = tasks.finish(
            connection,
            [task.id for task in open_tasks if task.attempt == attempt],
            TaskState.FAILED,
            reason=end.reason,
            message=end.message,
            result={"log_tail": end.log_tail} if end.log_tail else None,
        )
        row = replicas.read(connection, replica_id)
        gone = end.gone or never_launched(connection, replica_id, attempt)
        if gone:
            replicas.record_released(connection, replica_id, attempt)
        rung = waiting_pools(connection, row) if gone else []
    after_end(ctx, row, ended, rung)
    return True


def record_gone(ctx: Context, replica_id: str, attempt: int, end: End | None = None) -> bool:
    """Nothing is left of an attempt that was asked to end: return what it held and finish what waited for that."""
    with ctx.database.begin() as connection:
        open_tasks = tasks.open_of(connection, replica_id, LIFECYCLE_KINDS)
        row = replicas.lock(connection, replica_id)
        if row is None or row.attempt != attempt:
            return False
        if end:
            _record_end(connection, replica_id, attempt, end)
        restart = next((task for task in open_tasks if task.kind == TaskKind.RESTART), None)
        stops = [task.id for task in open_tasks if task.kind == TaskKind.STOP]
        if row.state == State.STOPPING:
            _leave_stopping(connection, row, restart, stops)
        elif row.state not in TERMINAL:
            return False
        released = replicas.record_released(connection, replica_id, attempt)
        ended = tasks.finish(connection, stops, TaskState.SUCCEEDED, message=f"replica {replica_id} was seen gone")
        rung = waiting_pools(connection, row) if released else []
    if released and restart is not None:
        ctx.doorbell.ring(TaskKind.RESTART, queue_for(TaskKind.RESTART, row.pool, None), pool=row.pool)
    after_end(ctx, row, ended, rung)
    return released


def never_launched(connection: Connection, replica_id: str, attempt: int) -> bool:
    """Whether that attempt is open and no backend was asked to launch it. In a transaction that ends its launch tasks:
    who still holds one is refused when it is about to ask, so that this stays so."""
    query = text(
        "SELECT 1 FROM attempts WHERE replica_id = :id AND number = :number AND released_at IS NULL"
        " AND launching_at IS NULL"
    )
    return connection.execute(query, {"id": replica_id, "number": attempt}).first() is not None


def _leave_stopping(connection: Connection, row: Any, restart: Any | None, stops: list[str]) -> None:
    task_id = next(iter(stops), None)
    if restart is not None and row.desired_state == "running":
        patch: Mapping[str, Any] = {
            "attempt": restart.attempt,
            "node": None,
            "host": None,
            "port": None,
            "base_url": None,
            "diagnostics": None,
            "check_failures": 0,
        }
        path, reason, message = (State.STOPPING, State.PENDING), None, ""
        task_id = restart.id
    else:
        patch = {"base_url": None}
        # a stop that had trouble has none now
        was_hard = row.message.startswith(STOP_TROUBLE)
        message = "its stop was asked for more than once; then it was seen gone" if was_hard else row.message
        path, reason = (State.STOPPING, State.STOPPED), row.reason
    replicas.record_moves(
        connection,
        [
            Move(
                row.id,
                row.attempt,
                path,
                cause="seen gone",
                reason=reason,
                message=message,
                task_id=task_id,
                patch=patch,
            )
        ],
    )


def _record_end(connection: Connection, replica_id: str, attempt: int, end: End) -> None:
    connection.execute(
        text(
            # what a failed one was ended by is no news: the first word says why
            "UPDATE attempts SET message = CASE WHEN reason IS NULL THEN left(:message, 4000) ELSE message END,"
            " reason = coalesce(reason, :reason),"
            " exit_code = coalesce(:exit_code, exit_code), signal = coalesce(:signal, signal),"
            " log_tail = CASE WHEN :log_tail = '' THEN log_tail ELSE :log_tail END,"
            " ended_at = coalesce(ended_at, hostler_now())"
            " WHERE replica_id = :replica_id AND number = :number AND released_at IS NULL"
        ),
        {
            "reason": end.reason,
            "message": end.message,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "log_tail": end.log_tail[-8000:].replace("\0", ""),
            "replica_id": replica_id,
            "number": attempt,
        },
    )


def waiting_pools(connection: Connection, row: Any) -> list[str]:
    """The replica's own pool, and the others that wait for a GPU or a port of its host."""
    return [row.pool, *leases.pools_short_of(connection, row.node, row.pool)] if row.node else [row.pool]


def after_end(ctx: Context, row: Any, ended: Iterable[str], rung: Iterable[str]) -> None:
    for pool in rung:
        # room was returned: whoever waits for it is claimed now, not at the next sweep
        ctx.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, pool, None), pool=pool)
    ctx.notify("events", f"replica:{row.id}", *(f"task:{task_id}" for task_id in ended))
