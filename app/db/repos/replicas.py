"""Replicas: the only place that assigns a state. Every step is guarded and leaves its event in the same statement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import AdaptedToServices, knows_services
from app.domain.lifecycle import Reason, State, check_path
from app.domain.tasks import Phase


@dataclass(frozen=True)
class Move:
    """One replica's way through the lifecycle: ``path[0]`` is the state it must be in, ``path[-1]`` the new one.

    With ``lease_token`` the task must still be held under it: otherwise somebody newer owns the replica and nothing is
    written. What the step means for that task and for the attempt is written with it. ``patch`` sets columns of
    ``PATCHABLE``. ``deadline_s`` and ``next_check_s`` count from now; None clears, but ``keeps_deadline`` leaves the
    deadline as it is.
    """

    replica_id: str
    attempt: int
    path: tuple[State, ...]
    cause: str
    actor: str = "hostler"
    reason: Reason | None = None
    message: str = ""
    task_id: str | None = None
    lease_token: str | None = None
    request_id: str = ""
    next_check_s: float | None = None
    deadline_s: float | None = None
    keeps_deadline: bool = False
    patch: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    #: what the task does now; only with ``task_id`` and ``lease_token``
    phase: Phase | None = None
    #: the task goes on without a holder: the sweep carries it
    let_go: bool = False
    #: the task succeeds with the step, saying ``outcome``
    succeeds: bool = False
    outcome: str = ""
    result: Mapping[str, Any] | None = None
    #: from this step on an outside thing may exist
    launching: bool = False
    #: the backend's handle of the attempt, and its last output where there is no file
    handle: Mapping[str, Any] | None = None
    log_tail: str = ""


#: Columns a Move may set beside the state, with their SQL types.
PATCHABLE = {
    "node": "text",
    "host": "text",
    "port": "integer",
    "base_url": "text",
    "desired_state": "text",
    "grace_s": "integer",
    "attempt": "integer",
    "check_failures": "integer",
    "diagnostics": "jsonb",
    "last_health": "jsonb",
}

_RECORD = """jsonb_to_recordset(CAST(:moves AS jsonb)) AS m(
    replica_id text, attempt integer, path text[], cause text, actor text, reason text, message text,
    task_id text, lease_token uuid, request_id text, next_check_s float8, deadline_s float8, keeps_deadline boolean,
    patch jsonb, data jsonb, phase text, let_go boolean, succeeds boolean, outcome text, result jsonb,
    launching boolean, handle jsonb, log_tail text)"""


def _patched(column: str, sql_type: str) -> str:
    value = f"m.patch->'{column}'" if sql_type == "jsonb" else f"CAST(m.patch->>'{column}' AS {sql_type})"
    return f"{column} = CASE WHEN m.patch ? '{column}' THEN {value} ELSE r.{column} END"


# Rows are named by the ids beside ``m``, so that a plan made while the tables were small still fetches them by index.
_MOVE = text(
    f"""
WITH m AS MATERIALIZED (SELECT * FROM {_RECORD}),
-- only a running task has a token (ck_tasks_lease_only_running)
fence AS MATERIALIZED (
    SELECT t.id FROM tasks t JOIN m ON t.id = m.task_id AND t.lease_token = m.lease_token
    WHERE t.id = ANY(:task_ids) AND m.lease_token IS NOT NULL FOR UPDATE OF t
),
moved AS (
    UPDATE replicas r SET
        state = m.path[array_upper(m.path, 1)],
        reason = m.reason,
        message = left(m.message, 4000),
        state_since = hostler_now(),
        updated_at = hostler_now(),
        version = r.version + 1,
        timestamps = r.timestamps || (SELECT jsonb_object_agg(s, hostler_now()) FROM unnest(m.path[2:]) AS s),
        next_check_at = hostler_now() + make_interval(secs => m.next_check_s),
        deadline_at = CASE WHEN m.keeps_deadline THEN r.deadline_at
            ELSE hostler_now() + make_interval(secs => m.deadline_s) END,
        {", ".join(_patched(column, sql_type) for column, sql_type in PATCHABLE.items())}
    FROM m
    WHERE r.id = ANY(:replica_ids) AND r.id = m.replica_id AND r.state = m.path[1] AND r.attempt = m.attempt
      AND (m.lease_token IS NULL OR m.task_id IN (SELECT id FROM fence))
    RETURNING r.id, r.pool, r.node, m.*
),
stepped AS (
    UPDATE tasks t SET
        version = t.version + 1,
        phase = CASE WHEN m.succeeds THEN 'done' ELSE coalesce(m.phase, t.phase) END,
        state = CASE WHEN m.succeeds THEN 'succeeded' ELSE t.state END,
        finished_at = CASE WHEN m.succeeds THEN hostler_now() ELSE t.finished_at END,
        message = CASE WHEN m.succeeds THEN left(m.outcome, 4000) ELSE t.message END,
        result = CASE WHEN m.succeeds THEN m.result ELSE t.result END,
        lease_token = CASE WHEN m.let_go OR m.succeeds THEN NULL ELSE t.lease_token END,
        lease_expires_at = CASE WHEN m.let_go OR m.succeeds THEN NULL ELSE t.lease_expires_at END
    FROM moved m WHERE t.id = ANY(:task_ids) AND t.id = m.task_id AND m.lease_token IS NOT NULL
),
noted AS (
    UPDATE attempts a SET
        launching_at = CASE WHEN m.launching THEN coalesce(a.launching_at, hostler_now()) ELSE a.launching_at END,
        backend_ref = coalesce(m.handle, a.backend_ref),
        log_tail = CASE WHEN m.log_tail = '' THEN a.log_tail ELSE m.log_tail END
    FROM moved m WHERE a.replica_id = ANY(:replica_ids) AND a.replica_id = m.id AND a.number = m.attempt
      AND a.released_at IS NULL AND (m.launching OR m.handle IS NOT NULL)
),
told AS (
    INSERT INTO events (kind, replica_id, attempt, task_id, pool, node, actor, cause, from_state, to_state,
                        reason, message, request_id, data)
    SELECT 'transition', moved.id, moved.attempt, moved.task_id, moved.pool, moved.node, moved.actor, moved.cause,
           moved.path[hop], moved.path[hop + 1],
           CASE WHEN hop + 1 = array_upper(moved.path, 1) THEN moved.reason END,
           CASE WHEN hop + 1 = array_upper(moved.path, 1) THEN left(moved.message, 4000) ELSE '' END,
           coalesce(moved.request_id, ''), moved.data
    FROM moved, generate_series(1, array_upper(moved.path, 1) - 1) AS hop
    ORDER BY moved.id, hop
),
ended AS (
    INSERT INTO events (kind, replica_id, attempt, task_id, pool, node, actor, cause, message, request_id)
    SELECT 'task_succeeded', moved.id, moved.attempt, moved.task_id, moved.pool, moved.node, moved.actor,
           'launch succeeded', left(moved.outcome, 4000), coalesce(moved.request_id, '')
    FROM moved WHERE moved.succeeds AND moved.lease_token IS NOT NULL
)
SELECT id FROM moved
"""
)

_RELEASE = text(
    """
WITH ended AS (
    UPDATE attempts SET released_at = hostler_now(), ended_at = coalesce(ended_at, hostler_now())
    WHERE replica_id = :replica_id AND number = :attempt AND released_at IS NULL RETURNING id, pool, node, launching_at
),
freed AS (
    UPDATE leases SET released_at = hostler_now()
    WHERE attempt_id IN (SELECT id FROM ended) AND released_at IS NULL RETURNING id
),
unheld AS (
    UPDATE units SET lease_id = NULL, last_freed_at = hostler_now() WHERE lease_id IN (SELECT id FROM freed)
),
drained AS (DELETE FROM drains WHERE replica_id = :replica_id AND attempt = :attempt)
INSERT INTO events (kind, replica_id, attempt, pool, node, actor, cause, message, request_id)
SELECT 'released', :replica_id, :attempt, pool, node, :actor,
    coalesce(:cause, CASE WHEN launching_at IS NULL THEN 'never launched; leases returned'
                          ELSE 'seen gone, leases returned' END),
    left(:message, 4000), :request_id FROM ended
RETURNING id
"""
)

_CLOSE = text(
    """
UPDATE replicas SET released_at = hostler_now(), next_check_at = NULL, deadline_at = NULL, lifetime_ends_at = NULL,
       updated_at = hostler_now(), version = version + 1
WHERE id = :replica_id AND attempt = :attempt AND state IN ('stopped', 'failed') AND released_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.replica_id = replicas.id AND a.released_at IS NULL)
RETURNING id
"""
)


def record_moves(connection: Connection, moves: Sequence[Move]) -> set[str]:
    """Carry out legal steps; returns the ids that moved. A missing id means: somebody was faster, drop the result.

    Raises IllegalTransition for a path that the lifecycle table does not hold.
    """
    if not moves:
        return set()
    for move in moves:
        check_path(move.path)
    rows = [asdict(move) for move in sorted(moves, key=lambda move: move.replica_id)]
    values = {
        "moves": json.dumps(rows),
        "replica_ids": [move.replica_id for move in moves],
        "task_ids": [move.task_id for move in moves if move.task_id is not None],
    }
    return {row[0] for row in connection.execute(_MOVE, values)}


def rehearse(connection: Connection) -> None:
    """Move nothing. It lets the connection plan ``record_moves``, which costs more than carrying it out."""
    connection.execute(_MOVE, {"moves": "[]", "replica_ids": [], "task_ids": []})


def record_released(
    connection: Connection,
    replica_id: str,
    attempt: int,
    *,
    cause: str | None = None,
    actor: str = "hostler",
    message: str = "",
    request_id: str = "",
) -> bool:
    """The attempt was seen gone, or never launched: close it, return its leases; stamp the replica when it is terminal.

    True when something changed. A restart calls this while its replica is still ``stopping``. Another ``cause`` than
    these is told with its ``actor`` and what they should know.
    """
    values = {
        "replica_id": replica_id, "attempt": attempt, "cause": cause, "actor": actor, "message": message,
        "request_id": request_id,
    }  # fmt: skip
    freed = connection.execute(_RELEASE, values).first() is not None
    closed = connection.execute(_CLOSE, values).first() is not None
    return freed or closed


def of_job(connection: Connection, job_id: str, most: int) -> list[Any]:
    """(id, runs) of the replicas for which a cluster has, or had, a job of that name: those for which it runs first,
    then the last ones."""
    if not knows_services(connection):
        return []
    query = text(
        "SELECT replica_id AS id, bool_or(released_at IS NULL) AS runs FROM attempts WHERE job_id = :job_id"
        " GROUP BY replica_id ORDER BY bool_or(released_at IS NULL) DESC, max(id) DESC LIMIT :most"
    )
    return list(connection.execute(query, {"job_id": job_id, "most": most}))


def lock(connection: Connection, replica_id: str) -> Any | None:
    """The replica's row, locked until the transaction ends; None when there is none."""
    return connection.execute(text("SELECT * FROM replicas WHERE id = :id FOR UPDATE"), {"id": replica_id}).first()


#: What is told of an attempt.
ATTEMPT = (
    "number", "name", "node", "port", "backend_ref", "reason", "message", "exit_code", "signal", "log_tail",
    "launching_at", "ended_at", "released_at",
)  # fmt: skip

_READ_WITH_ATTEMPTS = AdaptedToServices(
    lambda known: (
        f"SELECT r.*, {', '.join(f'a.{name} AS a_{name}' for name in ATTEMPT)},"
        f" {'a.job_id' if known else 'NULL'} AS a_job_id, {'a.told' if known else 'CAST(NULL AS jsonb)'} AS a_told,"
        f" {'a.stop_trouble' if known else 'NULL'} AS a_stop_trouble,"
        f" {'a.left_behind_at' if known else 'CAST(NULL AS timestamptz)'} AS a_left_behind_at"
        " FROM replicas r LEFT JOIN attempts a ON a.replica_id = r.id WHERE r.id = :id ORDER BY a.number"
    )
)


def read_with_attempts(connection: Connection, replica_id: str) -> list[Any]:
    """The replica's row once per attempt, oldest first, with ``ATTEMPT`` and what places need (``job_id, told,
    stop_trouble, left_behind_at``) as ``a_...``; NULLs there before the first."""
    return list(connection.execute(_READ_WITH_ATTEMPTS.of(connection), {"id": replica_id}))


def read(connection: Connection, replica_id: str) -> Any | None:
    """The replica's row, or None."""
    return connection.execute(text("SELECT * FROM replicas WHERE id = :id"), {"id": replica_id}).first()
