"""Tasks: claims by ``SKIP LOCKED``, leases by token, ends that happen once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import replicas
from app.db.repos.gateways import PORT_IS_FREE
from app.domain.lifecycle import Reason
from app.domain.tasks import Phase, TaskKind, TaskState
from app.errors import Collided

COLUMNS = """id, seq, kind, state, phase, priority, pool, node, replica_id, attempt, owner, request_id, arguments,
    reason, message, result, claims, claimed_by, created_at, started_at, finished_at, version"""

_HOLD = """
UPDATE tasks t SET state = 'running', phase = :phase, claims = t.claims + 1, claimed_by = :worker,
    lease_token = gen_random_uuid(), lease_expires_at = hostler_now() + make_interval(secs => :lease_s),
    started_at = coalesce(t.started_at, hostler_now()), version = t.version + 1
FROM best WHERE t.id = best.id
RETURNING t.id, t.kind, t.pool, t.node, t.replica_id, t.attempt, t.owner, t.request_id, t.arguments, t.claims,
    CAST(t.lease_token AS text) AS lease_token
"""

#: A message on a pool's queue may mean any host; one on a node's queue means what is bound to that host.
_SCOPES = {
    "pool": "t.pool = :pool AND (t.node IS NULL OR t.node = :node)",
    "node": "t.node = :node",
}
_DUE = "t.state = 'queued' AND (t.not_before IS NULL OR t.not_before <= hostler_now())"

# Two looks, because a full or draining pool must not cost a walk along its whole queue: what was claimed before holds
# its capacity already and is few; what is fresh is only looked for when there is room.
_LAUNCH = """
WITH again AS MATERIALIZED (
    SELECT t.id FROM tasks t JOIN replicas r ON r.id = t.replica_id AND r.attempt = t.attempt
    WHERE {due} AND t.claims > 0 AND t.kind IN ('create', 'restart') AND {scope}
      AND r.state IN ('scheduling', 'preparing', 'starting', 'waiting_for_ready')
    ORDER BY t.priority, t.seq LIMIT 1 FOR UPDATE OF t SKIP LOCKED
),
debt AS MATERIALIZED (
    SELECT (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = :pool AND u.retired
            AND u.lease_id IS NOT NULL) AS slots
    FROM pools p WHERE :room AND p.name = :pool AND p.state = 'active'
),
fresh AS MATERIALIZED (
    SELECT t.id FROM tasks t JOIN replicas r ON r.id = t.replica_id AND r.attempt = t.attempt
    WHERE :room AND NOT EXISTS (SELECT 1 FROM again)
      AND EXISTS (SELECT 1 FROM debt WHERE debt.slots < (SELECT count(*) FROM (SELECT 1 FROM units
          WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL AND NOT retired
          ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 + debt.slots) AS free))
      AND {due} AND t.kind IN ('create', 'restart') AND {scope} AND r.state = 'pending' {behind}
    ORDER BY t.priority, t.seq LIMIT 1 FOR UPDATE OF t SKIP LOCKED
),
best AS MATERIALIZED (SELECT id FROM again UNION ALL SELECT id FROM fresh)
"""
#: How far behind the head of a queue is looked for what may pass it.
_AHEAD = 200
# May pass a head that waits for GPUs: what wants none itself, while a slot and a port are left over for the head. So it
# takes nothing that the head waits for, and when the GPUs come the head has all it needs: passing never delays it. A
# head that is a gang waits for several slots and ports (``left``); no gang passes.
_PASSING = """
WITH debt AS MATERIALIZED (
    SELECT (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = :pool AND u.retired
            AND u.lease_id IS NOT NULL) AS slots
    FROM pools p WHERE p.name = :pool AND p.state = 'active'
),
ahead AS MATERIALIZED (
    SELECT t.id, t.priority, t.seq FROM tasks t
    WHERE {due} AND t.kind IN ('create', 'restart') AND {scope} ORDER BY t.priority, t.seq LIMIT :ahead
),
best AS MATERIALIZED (
    SELECT t.id FROM ahead JOIN tasks t ON t.id = ahead.id AND t.state = 'queued'
    JOIN replicas r ON r.id = t.replica_id AND r.attempt = t.attempt JOIN backends b ON b.name = r.backend
    WHERE r.state = 'pending' AND coalesce(r.spec->'resources'->>'gpus', r.spec->'resources'->>'gpu', '0') = '0'
      AND NOT t.arguments ? 'gang'
      AND EXISTS (SELECT 1 FROM debt WHERE debt.slots + :left < (SELECT count(*) FROM (SELECT 1 FROM units
          WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL AND NOT retired
          ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 + :left + debt.slots) AS free))
      AND (NOT b.host_bound OR :left < (SELECT count(*) FROM (SELECT 1 FROM units
          WHERE kind = 'port' AND scope = :node AND lease_id IS NULL AND NOT retired AND {port_is_free}
          ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 + :left) AS free))
    ORDER BY ahead.priority, ahead.seq LIMIT 1 FOR UPDATE OF t SKIP LOCKED
)
"""
_CLAIM_PASSING = text(_PASSING.format(due=_DUE, scope=_SCOPES["pool"], port_is_free=PORT_IS_FREE) + _HOLD)
_CLAIM_LAUNCH = {
    name: text(_LAUNCH.format(due=_DUE, scope=scope, behind="") + _HOLD) for name, scope in _SCOPES.items()
}
_NOT_ASIDE = "AND t.id <> ALL(CAST(:aside AS text[]))"
_CLAIM_BEHIND = {
    name: text(_LAUNCH.format(due=_DUE, scope=scope, behind=_NOT_ASIDE) + _HOLD) for name, scope in _SCOPES.items()
}
_CLAIM_OTHER = {
    name: text(
        "WITH best AS MATERIALIZED ("
        f" SELECT t.id FROM tasks t WHERE {_DUE} AND t.kind = :kind AND {scope}"
        " ORDER BY t.seq LIMIT 1 FOR UPDATE OF t SKIP LOCKED)" + _HOLD
    )
    for name, scope in _SCOPES.items()
}
_FINISH = text(
    """
WITH ended AS (
    UPDATE tasks SET state = :state, phase = 'done', reason = :reason, message = left(:message, 4000),
        result = CAST(:result AS jsonb), finished_at = hostler_now(), started_at = coalesce(started_at, hostler_now()),
        lease_token = NULL, lease_expires_at = NULL, version = version + 1
    WHERE id = ANY(:ids) AND state IN ('queued', 'running')
    RETURNING id, kind, replica_id, attempt, pool, node, request_id, arguments
),
told AS (
    INSERT INTO events (kind, replica_id, attempt, task_id, pool, node, actor, cause, reason, message, request_id, data)
    SELECT 'task_' || :state, replica_id, CASE WHEN replica_id IS NOT NULL THEN attempt END, id, pool, node, :actor,
           kind || ' ' || :state, :reason, left(:message, 4000), request_id,
           CASE WHEN replica_id IS NULL THEN jsonb_build_object('service_id', arguments->'service_id') END
    FROM ended
)
SELECT id FROM ended
"""
)


def claim_launch(
    connection: Connection,
    *,
    pool: str | None,
    node: str,
    worker: str,
    lease_s: float,
    room: bool = True,
    aside: Sequence[str] = (),
) -> Any | None:
    """The best create or restart of ``pool`` (None: of what is bound to ``node``), held for ``lease_s``.

    ``room=False`` takes only what holds its capacity already: a launch whose worker died, or one of a gang. ``aside``
    are tasks that are passed over.
    """
    values: dict[str, Any] = {
        "pool": pool, "node": node, "worker": worker, "lease_s": lease_s, "room": room, "phase": Phase.CLAIMED
    }  # fmt: skip
    statements = _CLAIM_BEHIND if aside else _CLAIM_LAUNCH
    if aside:
        values["aside"] = list(aside)
    return connection.execute(statements["pool" if pool else "node"], values).first()


def claim_passing(
    connection: Connection, *, pool: str, node: str, worker: str, lease_s: float, left: int = 1
) -> Any | None:
    """The best create or restart of ``pool`` that may pass a head which waits for GPUs; one at a time in each pool.

    ``left`` slots and ports stay for the head.
    """
    # two that pass at once would each believe that the other leaves the last slot to the head
    connection.execute(text("SELECT 1 FROM pools WHERE name = :pool FOR NO KEY UPDATE"), {"pool": pool})
    values = {
        "pool": pool, "node": node, "worker": worker, "lease_s": lease_s, "phase": Phase.CLAIMED, "ahead": _AHEAD,
        "left": left,
    }  # fmt: skip
    return connection.execute(_CLAIM_PASSING, values).first()


def is_overtaking(connection: Connection, task_id: str, pool: str, aside: Sequence[str] = ()) -> bool:
    """Whether a better create or restart of the pool than this still waits, but for ``aside``: one that somebody else
    is claiming this moment."""
    query = text(
        "SELECT EXISTS (SELECT 1 FROM tasks mine JOIN tasks t ON t.pool = :pool"
        " AND (t.priority, t.seq) < (mine.priority, mine.seq) JOIN replicas r ON r.id = t.replica_id"
        f" WHERE mine.id = :id AND {_DUE} AND t.kind IN ('create', 'restart') AND r.state = 'pending' {_NOT_ASIDE})"
    )
    return bool(connection.execute(query, {"id": task_id, "pool": pool, "aside": list(aside)}).scalar())


def claim_other(
    connection: Connection, *, kind: TaskKind, pool: str | None, node: str, worker: str, lease_s: float, phase: Phase
) -> Any | None:
    """The oldest due task of that kind in ``pool`` (None: of what is bound to ``node``) that this node may do."""
    values = {"kind": kind, "pool": pool, "node": node, "worker": worker, "lease_s": lease_s, "phase": phase}
    return connection.execute(_CLAIM_OTHER["pool" if pool else "node"], values).first()


def renew(connection: Connection, task_id: str, lease_token: str, lease_s: float) -> bool:
    """Hold on for another ``lease_s``; False when the lease was lost."""
    query = text(
        "UPDATE tasks SET lease_expires_at = hostler_now() + make_interval(secs => :lease_s)"
        " WHERE id = :id AND lease_token = CAST(:token AS uuid) RETURNING id"
    )
    return connection.execute(query, {"id": task_id, "token": lease_token, "lease_s": lease_s}).first() is not None


def lock_held(connection: Connection, task_id: str, lease_token: str) -> bool:
    """Whether the task is still held under that token; it stays so until the transaction ends."""
    query = text("SELECT 1 FROM tasks WHERE id = :id AND lease_token = CAST(:token AS uuid) FOR UPDATE")
    return connection.execute(query, {"id": task_id, "token": lease_token}).first() is not None


def set_phase(connection: Connection, task_id: str, lease_token: str, phase: Phase, *, release: bool = False) -> bool:
    """Say what the task does now. ``release`` leaves it running without a holder: the sweep carries it on."""
    query = text(
        "UPDATE tasks SET phase = :phase, version = version + 1,"
        " lease_token = CASE WHEN :release THEN NULL ELSE lease_token END,"
        " lease_expires_at = CASE WHEN :release THEN NULL ELSE lease_expires_at END"
        " WHERE id = :id AND lease_token = CAST(:token AS uuid) RETURNING id"
    )
    values = {"id": task_id, "token": lease_token, "phase": phase, "release": release}
    return connection.execute(query, values).first() is not None


def put_back(
    connection: Connection, task_id: str, lease_token: str, *, delay_s: float = 0, claims: int | None = None
) -> bool:
    """Queue it again, not before ``delay_s`` from now, as claimed ``claims`` times (None: as often as it was).
    Fenced."""
    query = text(
        "UPDATE tasks SET state = 'queued', phase = 'queued', lease_token = NULL, lease_expires_at = NULL,"
        " version = version + 1, not_before = hostler_now() + make_interval(secs => :delay_s),"
        " claims = coalesce(CAST(:claims AS integer), claims)"
        " WHERE id = :id AND lease_token = CAST(:token AS uuid) RETURNING id"
    )
    values = {"id": task_id, "token": lease_token, "delay_s": delay_s, "claims": claims}
    return connection.execute(query, values).first() is not None


def finish(
    connection: Connection,
    ids: Sequence[str],
    state: TaskState,
    *,
    actor: str = "hostler",
    reason: Reason | None = None,
    message: str = "",
    result: dict[str, Any] | None = None,
) -> set[str]:
    """End open tasks; returns those that ended now (an ended task never changes again)."""
    if not ids:
        return set()
    values = {
        "ids": list(ids),
        "state": str(state),
        "reason": reason,
        "message": message,
        "actor": actor,
        "result": None if result is None else json.dumps(result),
    }
    return {row[0] for row in connection.execute(_FINISH, values)}


def open_of(connection: Connection, replica_id: str, kinds: Sequence[TaskKind]) -> list[Any]:
    """Open tasks of one replica, oldest first, locked."""
    query = text(
        f"SELECT {COLUMNS} FROM tasks WHERE replica_id = :replica_id AND kind = ANY(:kinds)"
        " AND state IN ('queued', 'running') ORDER BY seq FOR UPDATE"
    )
    return list(connection.execute(query, {"replica_id": replica_id, "kinds": [str(kind) for kind in kinds]}))


def lock_with_replica(
    connection: Connection, replica_id: str, kinds: Sequence[TaskKind]
) -> tuple[list[Any], Any | None]:
    """(open tasks of the replica, its row), all locked: tasks before replicas, as every writer does.

    Raises Collided when a task came while the replica was waited for: a worker may hold it by now and wait for the
    replica, so that whoever wrote beside it would wait for that worker.
    """
    locked = open_of(connection, replica_id, kinds)
    row = replicas.lock(connection, replica_id)
    query = text(
        "SELECT id FROM tasks WHERE replica_id = :replica_id AND kind = ANY(:kinds) AND state IN ('queued', 'running')"
    )
    found = connection.execute(query, {"replica_id": replica_id, "kinds": [str(kind) for kind in kinds]})
    if {task.id for task in found} - {task.id for task in locked}:
        raise Collided(retry_after_s=1)
    return locked, row


def lock_all(connection: Connection, replica_ids: Sequence[str], kinds: Sequence[TaskKind]) -> None:
    """Lock several replicas and their open tasks, all tasks before all replicas and each in order of ids: one after the
    other would wait for a writer of many that has them the other way round."""
    values = {"ids": list(replica_ids), "kinds": [str(kind) for kind in kinds]}
    connection.execute(
        text(
            "SELECT 1 FROM tasks WHERE replica_id = ANY(:ids) AND kind = ANY(:kinds)"
            " AND state IN ('queued', 'running') ORDER BY id FOR UPDATE"
        ),
        values,
    )
    connection.execute(text("SELECT 1 FROM replicas WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"), values)


def read(connection: Connection, task_id: str) -> Any | None:
    """The task's row, or None."""
    return connection.execute(text(f"SELECT {COLUMNS} FROM tasks WHERE id = :id"), {"id": task_id}).first()
