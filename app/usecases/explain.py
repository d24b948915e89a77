"""Why a replica is where it is: the evidence from the database, the rule from the domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import drains
from app.db.repos.gateways import PORT_IS_FREE
from app.db.repos.newer import AdaptedToServices
from app.domain.explanations import Gang, Situation
from app.domain.explanations import explain as apply_rules
from app.domain.lifecycle import LAUNCHING, Reason, State
from app.domain.placement import gpus_wanted
from app.errors import NotFound
from app.usecases import gangs
from app.usecases.context import Context
from app.usecases.replicas import cleanup_of

#: A worker that was not heard of for so long serves nothing.
HEARD_S = 30

_READ = AdaptedToServices(
    lambda known: (
        f"""
SELECT r.*, p.state AS pool_state, p.slots AS slots_total, p.gpus AS pool_gpus, b.host_bound,
    {"a.told" if known else "CAST(NULL AS jsonb)"} AS told,
    {"a.stop_trouble" if known else "NULL"} AS stop_trouble,
    {"a.left_behind_at" if known else "CAST(NULL AS timestamptz)"} AS left_behind_at,
    (SELECT extract(epoch FROM hostler_now() - n.heartbeat_at) FROM nodes n WHERE n.name = r.node) AS host_silent_s,
    r.node IS NOT NULL OR NOT EXISTS (SELECT 1 FROM nodes) OR EXISTS (SELECT 1 FROM nodes n
        WHERE n.heartbeat_at > hostler_now() - make_interval(secs => :heard_s)
        {"AND (n.pools IS NULL OR r.pool = ANY(n.pools))" if known else ""}) AS looked_at,
    a.name AS attempt_name, a.launching_at,
    a.backend_ref, a.stop_asked_at, a.exit_code, a.signal,
    t.id AS task_id, t.kind AS task_kind, t.state AS task_state, t.claimed_by, t.lease_expires_at, t.seq, t.claims,
    CASE WHEN t.state = 'queued' AND t.not_before > hostler_now() THEN t.not_before END AS tried_again_at,
    t.arguments->>'gang' AS gang,
    t.priority AS task_priority,
    (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = r.pool AND u.lease_id IS NULL AND NOT u.retired)
        - (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = r.pool AND u.retired
            AND u.lease_id IS NOT NULL) AS slots_free,
    (SELECT count(*) FROM units u WHERE u.kind = 'gpu' AND u.lease_id IS NULL AND NOT u.retired) AS gpus_free,
    (SELECT count(*) FROM units u WHERE u.kind = 'pool_gpu' AND u.scope = r.pool AND u.lease_id IS NULL
        AND NOT u.retired) AS pool_gpus_free,
    (SELECT count(*) FROM (SELECT 1 FROM units WHERE kind = 'port' AND lease_id IS NULL AND NOT retired
        AND {PORT_IS_FREE} LIMIT 1) AS one) AS ports_free,
    EXISTS (SELECT 1 FROM workers w WHERE 'pool.' || r.pool = ANY(w.queues)
        AND w.heartbeat_at > hostler_now() - make_interval(secs => :heard_s)) AS workers_heard,
    (SELECT id FROM events e WHERE e.replica_id = r.id AND e.kind = 'transition' ORDER BY id DESC LIMIT 1) AS event_id
FROM replicas r JOIN pools p ON p.name = r.pool JOIN backends b ON b.name = r.backend
LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
LEFT JOIN tasks t ON t.replica_id = r.id AND t.state IN ('queued', 'running')
    AND t.kind IN ('create', 'stop', 'restart')
WHERE r.id = :id
"""
    )
)


def explain(ctx: Context, replica_id: str) -> dict[str, Any]:
    """Rule, evidence, since, position, next deadline and the command to type. Raises NotFound."""
    with ctx.database.read() as connection:
        row = connection.execute(_READ.of(connection), {"id": replica_id, "heard_s": HEARD_S}).first()
        if row is None:
            raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
        position, first = _position(connection, row)
        gang = _gang(connection, row) if row.state == State.PENDING and row.gang else None
        drain = drains.read(connection, replica_id) if row.state == State.STOPPING else None
    state = State(row.state)
    found = apply_rules(
        Situation(
            replica_id=replica_id,
            state=state,
            reason=Reason(row.reason) if row.reason else None,
            message=row.message,
            pool=row.pool,
            pool_state=row.pool_state,
            node=row.node,
            task_id=row.task_id,
            position=position,
            slots_free=max(0, row.slots_free),
            slots_total=row.slots_total,
            gpus_wanted=gpus_wanted(row.spec) if row.host_bound or row.pool_gpus is not None else 0,
            gpus_free=_gpus_free(row),
            ports_free=row.ports_free if row.host_bound else None,
            first=first,
            workers_heard=row.workers_heard,
            lease_held=row.lease_expires_at is not None,
            cleanup_pending=cleanup_of(row) is not None,
            restarting=row.task_kind == "restart",
            port=row.port,
            check_failures=row.check_failures,
            tried_again_at=_iso(row.tried_again_at),
            retrying=row.task_state == "queued" and row.attempt_name is not None,
            host_silent_s=None if row.host_silent_s is None else float(row.host_silent_s),
            looked_at=row.looked_at,
            stop_trouble=row.stop_trouble or "",
            left_behind=row.left_behind_at is not None,
            submitted=row.launching_at is not None and row.backend_ref is not None,
            cluster=row.told or {},
            draining_until=_iso(drain.until) if drain else None,
            in_use_by=tuple(drain.gateways) if drain else (),
            gang=gang,
            # whoever launches it claims it once more
            capacity_held=bool(row.gang) and row.claims == 1 and row.task_state == "queued",
        )
    )
    return {
        "replica_id": replica_id,
        "status": row.state,
        "reason": row.reason,
        "rule": found.rule,
        "message": found.text,
        "evidence": _evidence(row, drain),
        "since": _iso(row.state_since),
        "position": position,
        "deadline": _iso(
            drain.until if drain else row.deadline_at or (row.lifetime_ends_at if state not in LAUNCHING else None)
        ),
        "command": found.command,
    }


def _gang(connection: Connection, row: Any) -> Gang | None:
    found = gangs.waiting_with(connection, row.gang, row.task_id)
    return Gang(found.size, found.gpus, found.short, found.free) if found else None


def _position(connection: Connection, row: Any) -> tuple[int | None, str | None]:
    """(place in the queue, who is at its head when that is another one)."""
    if row.state != State.PENDING or row.seq is None:
        return None, None
    query = text(
        "SELECT count(*) + 1 AS position, (array_agg(replica_id ORDER BY priority, seq))[1] AS first FROM tasks"
        " WHERE pool = :pool AND state = 'queued' AND kind IN ('create', 'restart')"
        " AND (priority, seq) < (:priority, :seq)"
    )
    found = connection.execute(query, {"pool": row.pool, "priority": row.task_priority, "seq": row.seq}).one()
    return int(found.position), found.first


def _gpus_free(row: Any) -> int:
    limits = [row.gpus_free] if row.host_bound else []
    limits += [row.pool_gpus_free] if row.pool_gpus is not None else []
    return min(limits, default=0)


def _evidence(row: Any, drain: Any | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"what": "last transition", "event_id": row.event_id}]
    if row.task_id:
        found.append(
            {
                "what": f"open {row.task_kind}",
                "task_id": row.task_id,
                "state": row.task_state,
                "held_by": row.claimed_by if row.lease_expires_at else None,
                "lease_until": _iso(row.lease_expires_at),
            }
        )
    if row.attempt_name:
        found.append(
            {
                "what": f"attempt {row.attempt}",
                "name": row.attempt_name,
                "launching_since": _iso(row.launching_at),
                "stop_asked_at": _iso(row.stop_asked_at),
                "stop_trouble": row.stop_trouble,
                "left_behind_at": _iso(row.left_behind_at),
                "exit_code": row.exit_code,
                "signal": row.signal,
            }
        )
    if row.told:
        said = {name: told for name, told in row.told.items() if told not in ("", [])}
        found.append({"what": "cluster", **said})
    if row.state == State.PENDING:
        found.append(
            {
                "what": f"pool {row.pool}",
                "state": row.pool_state,
                "slots_free": row.slots_free,
                "slots": row.slots_total,
            }
        )
    if drain:
        found.append(
            {"what": "drain", "seconds": drain.seconds, "until": _iso(drain.until), "gateways": drain.gateways}
        )
    if row.last_health:
        found.append({"what": "last probe", **row.last_health})
    return found


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
