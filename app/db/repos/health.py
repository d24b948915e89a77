"""What `/health` and `/metrics` count, in one statement each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

_SUMMARY = text(
    """
SELECT
    (SELECT coalesce(sum(change), 0) FROM replica_counts) AS replicas_total,
    (SELECT coalesce(sum(change), 0) FROM replica_counts WHERE state = 'ready') AS replicas_ready,
    (SELECT coalesce(sum(concurrency), 0) FROM workers
     WHERE role = 'worker' AND heartbeat_at > hostler_now() - make_interval(secs => :silent_s)) AS seats,
    (SELECT count(*) FROM tasks WHERE lease_token IS NOT NULL AND kind IN ('create', 'restart')) AS busy,
    (SELECT coalesce(array_agg(DISTINCT role), '{}') FROM workers
     WHERE heartbeat_at > hostler_now() - make_interval(secs => :silent_s)) AS roles,
    -- a host that went for good and left nothing behind is no problem for ever
    (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM nodes n
     WHERE heartbeat_at <= hostler_now() - make_interval(secs => :silent_s)
       AND (heartbeat_at > hostler_now() - interval '1 day'
            OR EXISTS (SELECT 1 FROM attempts a WHERE a.node = n.name AND a.released_at IS NULL))) AS silent_nodes,
    (SELECT extract(epoch FROM max(heartbeat_at - coalesce(canary_at, first_seen_at))) FROM nodes
     WHERE heartbeat_at > hostler_now() - make_interval(secs => :silent_s)) AS broker_silent_s,
    (SELECT coalesce(array_agg(w.id ORDER BY w.id), '{}') FROM workers w JOIN nodes n ON n.name = w.node
     WHERE w.role <> 'agent' AND w.heartbeat_at > hostler_now() - make_interval(secs => :silent_s)
       AND n.canary_at - greatest(w.consumed_at, w.started_at) > make_interval(secs => :deaf_s)) AS deaf_workers,
    (SELECT extract(epoch FROM hostler_now() - max(started_at)) FROM sweeps WHERE tick > 0) AS last_sweep_s,
    (SELECT extract(epoch FROM hostler_now() - min(created_at)) FROM tasks
     WHERE state = 'queued' AND kind NOT IN ('create', 'restart')) AS oldest_control_s
"""
)


def summary(connection: Connection, silent_s: float, deaf_s: float) -> Any:
    """Counts and ages of one moment; ages are seconds, None when there is none.

    A worker is deaf when canaries were sent for ``deaf_s`` that it did not hear.
    """
    return connection.execute(_SUMMARY, {"silent_s": silent_s, "deaf_s": deaf_s}).one()


def replicas_by_state(connection: Connection) -> list[tuple[str, str, int]]:
    """(pool, state, count) of replicas that are not gone yet or serve."""
    query = text("SELECT pool, state, count(*) FROM replicas WHERE released_at IS NULL GROUP BY pool, state")
    return [(row[0], row[1], int(row[2])) for row in connection.execute(query)]


def tasks_by_state(connection: Connection) -> list[tuple[str, str, str, int]]:
    """(pool, kind, state, count) of open tasks."""
    query = text(
        "SELECT pool, kind, state, count(*) FROM tasks WHERE state IN ('queued', 'running') GROUP BY pool, kind, state"
    )
    return [(row[0], row[1], row[2], int(row[3])) for row in connection.execute(query)]


def slots(connection: Connection) -> list[tuple[str, int, int]]:
    """(pool, slots, used) of every pool."""
    query = text(
        "SELECT p.name, p.slots, (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = p.name"
        " AND u.lease_id IS NOT NULL) FROM pools p ORDER BY p.name"
    )
    return [(row[0], int(row[1]), int(row[2])) for row in connection.execute(query)]
