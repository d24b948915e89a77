"""Repair, in the database: what died is taken back, what ran out is ended, what waits is rung for.

Any number of processes may sweep: a tick is carried out by whoever inserts its row first. Ticks are counted, and the
database's clock alone tells when the next one is due: clocks of hosts differ, and are set back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import drains as drains_repo
from app.db.repos import replica_pages, replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import Reason, State
from app.domain.tasks import LAUNCH_KINDS, LIFECYCLE_KINDS, TaskKind, TaskState
from app.doorbell.queues import queue_for
from app.errors import Collided, Unavailable
from app.usecases import clock, drains, gangs, gateways, reconciling, retention
from app.usecases.context import Context
from app.usecases.launches import MAX_CLAIMS
from app.usecases.silent_nodes import judge_silent_nodes
from app.usecases.stuck import free_stuck

#: Rows that one pass takes; the rest is the next pass's.
BATCH = 500
#: Between two looks for what should not be there: they read more than the others and find nothing as a rule.
BELTS_S = 10.0

log = logging.getLogger(__name__)


def sweep(ctx: Context, worker: str) -> dict[str, int | None] | None:
    """Carry out this tick of the repair sweep, unless somebody else has it: then None.

    Returns what each part did; None for a part that the database refused this time, which keeps no other from its work.
    """
    tick = _win(ctx, "repair", worker)
    if tick is None:
        return None
    result = {name: _carry_out(ctx, name, act) for name, act in _SWEEPS.items()}
    if _is_turn(tick, ctx.settings.sweep_interval_s):
        result |= {name: _carry_out(ctx, name, act) for name, act in _BELTS.items()}
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE sweeps SET finished_at = hostler_now(), result = CAST(:result AS jsonb)"
                " WHERE name = 'repair' AND tick = :tick"
            ),
            {"tick": tick, "result": json.dumps(result)},
        )
    return result


def take_back_expired(ctx: Context) -> int:
    """Tasks whose holder stopped renewing: queued again, or failed when too many holders died over them."""
    return _take_back(ctx, "lease_expires_at < hostler_now()", {})


def take_back_from(ctx: Context, workers: list[str]) -> int:
    """Tasks of workers that are known to be dead, without waiting for the lease."""
    return _take_back(ctx, "claimed_by = ANY(:workers) AND lease_token IS NOT NULL", {"workers": workers})


def ring_waiting(ctx: Context) -> int:
    """Ring once for every pool and node that has claimable tasks: a lost bell costs one sweep."""
    found = waiting(ctx)
    for kind, pool, node in found:
        scope = {"node": node} if node else {"pool": pool}
        ctx.doorbell.ring(kind, queue_for(kind, pool, node), **scope)
    return len(found)


def waiting(ctx: Context) -> list[tuple[TaskKind, str, str | None]]:
    """(verb, pool, the node that alone can do it) of everything that could be claimed if there is room."""
    query = text(
        "SELECT DISTINCT kind, pool, node FROM tasks WHERE state = 'queued'"
        " AND (not_before IS NULL OR not_before <= hostler_now())"
    )
    with ctx.database.read() as connection:
        return [(TaskKind(kind), pool, node) for kind, pool, node in connection.execute(query)]


def end_overdue(ctx: Context) -> int:
    """Creates that waited too long in the queue, and probes that ran out of time."""
    return _end_queue_timeouts(ctx) + _end_overdue_probes(ctx)


def end_lifetimes(ctx: Context) -> int:
    """Replicas past ``job_timeout_s`` are stopped."""
    with ctx.database.begin() as connection:
        due = [
            row.id
            for row in connection.execute(
                text(
                    "SELECT id FROM replicas WHERE lifetime_ends_at <= hostler_now() AND released_at IS NULL"
                    " AND state NOT IN ('stopping', 'stopped', 'failed') LIMIT :limit"
                ),
                {"limit": BATCH},
            )
        ]
    return sum(_end_lifetime(ctx, replica_id) for replica_id in due)


def fold_counts(ctx: Context) -> int:
    """Keep the totals of lists cheap to sum."""
    with ctx.database.begin() as connection:
        return replica_pages.fold_counts(connection)


_SWEEPS: dict[str, Callable[[Context], int]] = {
    "pulled_in": clock.pull_in,
    "taken_back": take_back_expired,
    "overdue": end_overdue,
    "lifetimes": end_lifetimes,
    "reconciled": reconciling.sweep,
    "rung": ring_waiting,
    "forgotten": retention.forget_old,
    "folded": fold_counts,
    "silent_gateways": gateways.forget_silent,
}
_BELTS: dict[str, Callable[[Context], int]] = {
    "silent_nodes": judge_silent_nodes,
    "hopeless_gangs": gangs.end_hopeless,
    "stuck": free_stuck,
}


def _is_turn(tick: int, interval_s: float) -> bool:
    """Whether ``BELTS_S`` began anew with this tick."""
    return int(tick * interval_s / BELTS_S) != int((tick - 1) * interval_s / BELTS_S)


def _carry_out(ctx: Context, name: str, act: Callable[[Context], int]) -> int | None:
    try:
        return act(ctx)
    except (Collided, Unavailable) as error:
        log.warning("sweep %s: %s; the next one tries again", name, error)
        return None


_NEXT_TICK = text(
    """
WITH last AS (SELECT tick, started_at FROM sweeps WHERE name = :name ORDER BY tick DESC LIMIT 1)
INSERT INTO sweeps (name, tick, worker)
SELECT :name, coalesce((SELECT tick FROM last), 0) + 1, :worker
-- one of the future began before the clock was set back
WHERE NOT EXISTS (SELECT 1 FROM last
    WHERE started_at > hostler_now() - make_interval(secs => :gap_s) AND started_at <= hostler_now())
ON CONFLICT DO NOTHING RETURNING tick
"""
)


def _win(ctx: Context, name: str, worker: str) -> int | None:
    """The tick that is due by now, if this process is the one to carry it out."""
    # several ask at about the same pace: the one that is a little early must not put it off by a whole interval
    values = {"name": name, "worker": worker, "gap_s": 0.8 * ctx.settings.sweep_interval_s}
    with ctx.database.begin() as connection:
        return connection.execute(_NEXT_TICK, values).scalar()


def _take_back(ctx: Context, condition: str, values: dict[str, Any]) -> int:
    with ctx.database.begin() as connection:
        lost = list(
            connection.execute(
                text(
                    f"SELECT id, kind, pool, node, replica_id, attempt, claims, claimed_by FROM tasks"
                    f" WHERE state = 'running' AND {condition} ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
                ),
                values,
            )
        )
        again = [task for task in lost if task.claims < MAX_CLAIMS]
        connection.execute(
            text(
                "WITH back AS (UPDATE tasks SET state = 'queued', phase = 'queued', lease_token = NULL,"
                " lease_expires_at = NULL, version = version + 1 WHERE id = ANY(:ids)"
                " RETURNING id, kind, replica_id, attempt, pool, node, request_id, claimed_by)"
                " INSERT INTO events"
                " (kind, replica_id, attempt, task_id, pool, node, actor, cause, message, request_id)"
                " SELECT 'task_taken_back', replica_id, attempt, id, pool, node, 'hostler', 'its holder is gone',"
                " 'held by ' || coalesce(claimed_by, '?'), request_id FROM back"
            ),
            {"ids": [task.id for task in again]},
        )
        for task in lost:
            if task.claims >= MAX_CLAIMS:
                _give_up(connection, task)
    for task in again:
        scope = {"node": task.node} if task.node else {"pool": task.pool}
        ctx.doorbell.ring(task.kind, queue_for(TaskKind(task.kind), task.pool, task.node), **scope)
    if lost:
        ctx.notify("events", *(f"task:{task.id}" for task in lost))
    return len(lost)


def _give_up(connection: Connection, task: Any) -> None:
    message = f"{task.claims} workers died over it; see `hostler events` and the workers' logs"
    tasks.finish(connection, [task.id], TaskState.FAILED, reason=Reason.BACKEND_ERROR, message=message)
    row = replicas.lock(connection, task.replica_id)
    if task.kind not in LAUNCH_KINDS or row is None or row.attempt != task.attempt:
        return
    replicas.record_moves(
        connection,
        [
            Move(
                row.id,
                row.attempt,
                (State(row.state), State.FAILED),
                cause="given up",
                reason=Reason.BACKEND_ERROR,
                message=message,
                task_id=task.id,
                next_check_s=0,
            )
        ],
    )


def _end_queue_timeouts(ctx: Context) -> int:
    ended = 0
    with ctx.database.begin() as connection:
        due = connection.execute(
            text(
                "SELECT t.id, t.replica_id FROM replicas r JOIN tasks t ON t.replica_id = r.id AND t.state = 'queued'"
                " AND t.kind IN ('create', 'restart') WHERE r.state = 'pending' AND r.deadline_at <= hostler_now()"
                " ORDER BY t.id LIMIT :limit FOR UPDATE OF t SKIP LOCKED"
            ),
            {"limit": BATCH},
        )
        topics = ["events"]
        for task_id, replica_id in list(due):
            row = replicas.lock(connection, replica_id)
            if row is None or row.state != State.PENDING:
                continue
            message = f"waited longer than queue_timeout_s in pool {row.pool}; see `hostler pool get {row.pool}`"
            replicas.record_moves(
                connection,
                [
                    Move(
                        replica_id,
                        row.attempt,
                        (State.PENDING, State.FAILED),
                        cause="deadline",
                        reason=Reason.QUEUE_TIMEOUT,
                        message=message,
                        task_id=task_id,
                    )
                ],
            )
            tasks.finish(connection, [task_id], TaskState.FAILED, reason=Reason.QUEUE_TIMEOUT, message=message)
            replicas.record_released(connection, replica_id, row.attempt)
            topics += [f"replica:{replica_id}", f"task:{task_id}"]
            ended += 1
    ctx.notify(*topics)
    return ended


def _end_overdue_probes(ctx: Context) -> int:
    with ctx.database.begin() as connection:
        due = [
            row.id
            for row in connection.execute(
                text(
                    "SELECT id FROM tasks WHERE kind IN ('health', 'diagnose') AND state IN ('queued', 'running')"
                    " AND deadline_at < hostler_now() - interval '5 seconds' LIMIT :limit FOR UPDATE SKIP LOCKED"
                ),
                {"limit": BATCH},
            )
        ]
        ended = tasks.finish(
            connection,
            due,
            TaskState.FAILED,
            reason=Reason.HEALTH_FAILED,
            message="nobody carried it out in time; see `hostler doctor`",
        )
    ctx.notify(*(f"task:{one}" for one in ended))
    return len(ended)


def _end_lifetime(ctx: Context, replica_id: str) -> bool:
    with ctx.database.begin() as connection:
        open_tasks = tasks.open_of(connection, replica_id, LIFECYCLE_KINDS)
        row = replicas.lock(connection, replica_id)
        if row is None or row.state in (State.STOPPING, State.STOPPED, State.FAILED):
            return False
        message = "its lifetime (job.job_timeout_s) is over"
        moved = replicas.record_moves(
            connection,
            [
                Move(
                    replica_id,
                    row.attempt,
                    (State(row.state), State.STOPPING),
                    cause="deadline",
                    reason=Reason.LIFETIME_EXPIRED,
                    message=message,
                    next_check_s=0,
                    patch={"desired_state": "stopped"},
                )
            ],
        )
        launching = [task.id for task in open_tasks if task.kind in LAUNCH_KINDS]
        ended = tasks.finish(connection, launching, TaskState.FAILED, reason=Reason.LIFETIME_EXPIRED, message=message)
        if moved:
            drains_repo.begin(connection, replica_id, row.attempt, drains.seconds_of(ctx.settings, row.spec))
    ctx.notify("events", f"replica:{replica_id}", f"due:{row.node or ''}", *(f"task:{one}" for one in ended))
    return bool(moved)
