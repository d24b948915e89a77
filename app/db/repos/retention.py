"""What has been kept long enough goes: in small batches, oldest first, by an index, and never a living thing.

Every statement takes ``keep_s`` (seconds that are kept) and ``limit`` (rows of one batch), and says how many rows went.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, TextClause, text

from app.db.repos.newer import AdaptedToServices, knows_services

#: The row of ``sweeps`` that says how far the history is forgotten. It is no sweep and is not deleted like one.
HORIZON = "history horizon"

_OLD = "hostler_now() - make_interval(secs => :keep_s)"

#: Oldest first by the order of streams and not by time, so that what is left has one beginning, which is written down
#: with it: who resumes before that is told.
_EVENTS = text(
    f"""
WITH first AS MATERIALIZED (
    SELECT id, xid, at FROM events WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT :limit
),
gone AS (
    DELETE FROM events e USING first WHERE e.id = first.id AND first.at < {_OLD} RETURNING e.xid, e.id
),
last AS (SELECT xid::text AS xid, id FROM gone ORDER BY gone.xid DESC, id DESC LIMIT 1),
told AS (
    INSERT INTO sweeps (name, tick, worker, started_at, finished_at, result)
    SELECT '{HORIZON}', 0, '', hostler_now(), hostler_now(), jsonb_build_object('xid', xid, 'id', id) FROM last
    ON CONFLICT (name, tick) DO UPDATE
    SET result = excluded.result, started_at = excluded.started_at, finished_at = excluded.finished_at
    WHERE (CAST(excluded.result->>'xid' AS xid8), CAST(excluded.result->>'id' AS bigint))
        > (CAST(sweeps.result->>'xid' AS xid8), CAST(sweeps.result->>'id' AS bigint))
)
SELECT count(*) FROM gone
"""
)
_TASKS = text(
    "WITH gone AS (DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE finished_at IS NOT NULL"
    f" AND finished_at < {_OLD} AND state NOT IN ('queued', 'running') ORDER BY finished_at LIMIT :limit"
    " FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)
#: A replica's present attempt goes with the replica.
_ATTEMPTS = text(
    "WITH gone AS (DELETE FROM attempts WHERE id IN (SELECT a.id FROM attempts a JOIN replicas r ON r.id = a.replica_id"
    f" WHERE a.released_at IS NOT NULL AND a.released_at < {_OLD} AND a.number < r.attempt"
    " ORDER BY a.released_at LIMIT :limit FOR UPDATE OF a SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)
_LEASES = text(
    "WITH gone AS (DELETE FROM leases WHERE id IN (SELECT id FROM leases WHERE released_at IS NOT NULL"
    f" AND released_at < {_OLD} ORDER BY released_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1)"
    " SELECT count(*) FROM gone"
)
_IDEMPOTENCY = text(
    "WITH gone AS (DELETE FROM idempotency WHERE ctid IN (SELECT ctid FROM idempotency"
    f" WHERE created_at < {_OLD} ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1)"
    " SELECT count(*) FROM gone"
)
_SWEEPS = text(
    "WITH gone AS (DELETE FROM sweeps WHERE (name, tick) IN (SELECT name, tick FROM sweeps"
    f" WHERE started_at < {_OLD} AND name <> '{HORIZON}' ORDER BY started_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
    " RETURNING 1) SELECT count(*) FROM gone"
)
_WORKERS = text(
    "WITH gone AS (DELETE FROM workers WHERE id IN (SELECT id FROM workers"
    f" WHERE heartbeat_at < {_OLD} LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)
_KEYS = AdaptedToServices(
    lambda known: (
        "WITH gone AS (DELETE FROM keys WHERE id IN (SELECT id FROM keys k"
        f" WHERE least(revoked_at, expires_at) < {_OLD} AND (SELECT r.id FROM replicas r WHERE r.owner = k.id"
        " ORDER BY r.created_at, r.id LIMIT 1) IS NULL"
        f"{' AND NOT EXISTS (SELECT 1 FROM services s WHERE s.owner = k.id)' if known else ''}"
        " LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
    )
)
#: A host goes when it was silent that long and nothing of it is open; its units are deleted once no pool or host is
#: called so any more and no lease in the history names them.
_NODES = text(
    "WITH gone AS (DELETE FROM nodes WHERE name IN (SELECT name FROM nodes n"
    f" WHERE heartbeat_at < {_OLD}"
    " AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.node = n.name AND a.released_at IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.node = n.name AND t.state IN ('queued', 'running'))"
    " LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)
_UNITS = text(
    """
WITH RECURSIVE scopes AS (
    (SELECT kind, scope FROM units ORDER BY kind, scope LIMIT 1)
    UNION ALL
    SELECT next.kind, next.scope FROM scopes s CROSS JOIN LATERAL (
        SELECT kind, scope FROM units u WHERE (u.kind, u.scope) > (s.kind, s.scope) ORDER BY kind, scope LIMIT 1
    ) AS next
),
orphaned AS MATERIALIZED (
    SELECT kind, scope FROM scopes s WHERE CASE WHEN kind IN ('slot', 'pool_gpu')
        THEN NOT EXISTS (SELECT 1 FROM pools p WHERE p.name = s.scope)
        ELSE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name = s.scope) END
),
gone AS (
    DELETE FROM units WHERE (kind, scope, number) IN (
        SELECT u.kind, u.scope, u.number FROM orphaned o JOIN units u ON u.kind = o.kind AND u.scope = o.scope
        WHERE u.lease_id IS NULL AND NOT EXISTS (
            SELECT 1 FROM leases l WHERE l.kind = u.kind AND l.scope = u.scope AND l.number = u.number
        )
        LIMIT :limit FOR UPDATE OF u SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM gone
"""
)

_REGISTRATIONS = text(
    "WITH gone AS (DELETE FROM registrations WHERE replica_id IN (SELECT replica_id FROM registrations"
    f" WHERE ended_at IS NOT NULL AND ended_at < {_OLD} ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
    " RETURNING 1) SELECT count(*) FROM gone"
)

_SERVICES = text(
    "WITH gone AS (DELETE FROM services WHERE id IN (SELECT s.id FROM services s WHERE s.ended_at IS NOT NULL"
    f" AND s.ended_at < {_OLD} AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.arguments->>'service_id' = s.id"
    " AND t.replica_id IS NULL AND t.state = 'running')"
    " ORDER BY s.ended_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)
#: Nobody goes back to what is that old and was overtaken; its number is not given again while a newer one is kept.
_REVISIONS = text(
    "WITH gone AS (DELETE FROM service_revisions WHERE (service_id, number) IN (SELECT v.service_id, v.number"
    " FROM service_revisions v JOIN services s ON s.id = v.service_id"
    f" WHERE v.created_at < {_OLD} AND v.number <> s.revision AND v.number IS DISTINCT FROM s.good_revision"
    " AND v.number < (SELECT max(n.number) FROM service_revisions n WHERE n.service_id = s.id)"
    " AND NOT EXISTS (SELECT 1 FROM service_members m WHERE m.service_id = v.service_id AND m.revision = v.number)"
    " LIMIT :limit FOR UPDATE OF v, s SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
)

_DONE_REPLICAS = text(
    "SELECT id FROM replicas WHERE released_at IS NOT NULL"
    f" AND released_at < {_OLD} AND state IN ('stopped', 'failed') ORDER BY released_at LIMIT :limit"
)
#: A running service remembers by the last replica of each place how often it failed there.
_UNMISSED = """AND NOT EXISTS (SELECT 1 FROM service_members m JOIN services s ON s.id = m.service_id
    WHERE m.replica_id = r.id AND s.desired_state = 'running' AND r.desired_state = 'running' AND NOT EXISTS (
        SELECT 1 FROM service_members n WHERE n.service_id = m.service_id AND n.ordinal = m.ordinal
          AND (n.created_at, n.replica_id) > (m.created_at, m.replica_id)))"""
_LOCK_TASKS = text("SELECT 1 FROM tasks WHERE replica_id = ANY(:ids) ORDER BY id FOR UPDATE")
_REPLICAS = AdaptedToServices(
    lambda known: (
        f"""
WITH gone AS (
    DELETE FROM replicas WHERE id IN (
        SELECT id FROM replicas r WHERE id = ANY(:ids) AND released_at < {_OLD} AND state IN ('stopped', 'failed')
          AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.replica_id = r.id AND t.state IN ('queued', 'running'))
          {_UNMISSED if known else ""}
        ORDER BY id FOR UPDATE SKIP LOCKED
    ) RETURNING id, pool
)
INSERT INTO events (kind, replica_id, pool, actor, cause)
SELECT 'replica_deleted', id, pool, 'hostler', 'kept long enough' FROM gone RETURNING replica_id
"""
    )
)


def forget(connection: Connection, table: str, keep_s: float, limit: int) -> int:
    """Delete up to ``limit`` rows of ``table`` that ended more than ``keep_s`` seconds ago; returns how many."""
    values = {"keep_s": keep_s, "limit": limit}
    if table == "replicas":
        return len(_forget_replicas(connection, values))
    if table in _NEW and not knows_services(connection):
        return 0
    statement = _STATEMENTS[table]
    if isinstance(statement, AdaptedToServices):
        statement = statement.of(connection)
    return int(connection.execute(statement, values).scalar_one())


def horizon(connection: Connection) -> tuple[int, int]:
    """The place of the last event that was forgotten, (0, 0) when none was: all events behind it are kept."""
    query = text(
        "SELECT CAST(result->>'xid' AS bigint) AS xid, CAST(result->>'id' AS bigint) AS id FROM sweeps"
        " WHERE name = :name AND tick = 0"
    )
    row = connection.execute(query, {"name": HORIZON}).first()
    return (row.xid, row.id) if row is not None else (0, 0)


def _forget_replicas(connection: Connection, values: dict[str, Any]) -> list[str]:
    ids = [row.id for row in connection.execute(_DONE_REPLICAS, values)]
    if not ids:
        return []
    # tasks before replicas, as everywhere: the delete takes them along
    connection.execute(_LOCK_TASKS, {"ids": ids})
    statement = _REPLICAS.of(connection)
    return [row.replica_id for row in connection.execute(statement, {"ids": ids, "keep_s": values["keep_s"]})]


#: Tables that the version before does not have.
_NEW = ("services", "service_revisions")
_STATEMENTS: dict[str, TextClause | AdaptedToServices] = {
    "attempts": _ATTEMPTS,
    "events": _EVENTS,
    "idempotency": _IDEMPOTENCY,
    "keys": _KEYS,
    "leases": _LEASES,
    "nodes": _NODES,
    "registrations": _REGISTRATIONS,
    "service_revisions": _REVISIONS,
    "services": _SERVICES,
    "sweeps": _SWEEPS,
    "tasks": _TASKS,
    "units": _UNITS,
    "workers": _WORKERS,
}
