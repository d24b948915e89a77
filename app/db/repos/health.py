"""What `/health` and `/metrics` count, in one statement each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

_SUMMARY = text(
    """
SELECT
    -- one that went for good is no problem for ever
    (SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM gateways
     WHERE heartbeat_at <= hostler_now() - make_interval(secs => :silent_s)
       AND heartbeat_at > hostler_now() - interval '1 day') AS silent_gateways,
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
       AND (heartbeat_at > hostler_now() - interval '1 day' AND NOT attributes ? 'left'
            OR EXISTS (SELECT 1 FROM attempts a WHERE a.node = n.name AND a.released_at IS NULL))) AS silent_nodes,
    (SELECT extract(epoch FROM max(heartbeat_at - coalesce(canary_at, first_seen_at))) FROM nodes
     WHERE heartbeat_at > hostler_now() - make_interval(secs => :silent_s)) AS broker_silent_s,
    (SELECT coalesce(array_agg(w.id ORDER BY w.id), '{}') FROM workers w JOIN nodes n ON n.name = w.node
     WHERE w.role <> 'agent' AND w.heartbeat_at > hostler_now() - make_interval(secs => :silent_s)
       AND n.canary_at - greatest(w.consumed_at, w.started_at) > make_interval(secs => :deaf_s)) AS deaf_workers,
    (SELECT extract(epoch FROM hostler_now() - max(started_at)) FROM sweeps WHERE tick > 0) AS last_sweep_s,
    (SELECT extract(epoch FROM hostler_now() - min(greatest(created_at, not_before))) FROM tasks
     WHERE state = 'queued' AND kind NOT IN ('create', 'restart')) AS oldest_control_s,
    (SELECT extract(epoch FROM hostler_now() - min(started_at)) FROM sweeps WHERE tick > 0) AS first_sweep_s,
    (SELECT extract(epoch FROM hostler_now() - max(finished_at)) FROM sweeps WHERE tick > 0) AS finished_sweep_s,
    (SELECT extract(epoch FROM hostler_now() - greatest(created_at, not_before)) FROM tasks
     WHERE state = 'queued' AND (not_before IS NULL OR not_before <= hostler_now())
     ORDER BY seq LIMIT 1) AS oldest_unclaimed_s,
    -- whose best create could be claimed now and was not: GPUs may well be what it waits for, so those are left out
    (SELECT coalesce(array_agg(p.name ORDER BY p.name), '{}') FROM pools p CROSS JOIN LATERAL (
         SELECT t.replica_id, greatest(t.created_at, t.not_before) AS since FROM tasks t
         WHERE t.pool = p.name AND t.state = 'queued' AND t.kind IN ('create', 'restart')
           AND (t.not_before IS NULL OR t.not_before <= hostler_now())
         ORDER BY t.priority, t.seq LIMIT 1) best
     JOIN replicas r ON r.id = best.replica_id
     WHERE p.state = 'active' AND r.state = 'pending'
       AND best.since < hostler_now() - make_interval(secs => :launch_late_s)
       AND coalesce(r.spec->'resources'->>'gpus', r.spec->'resources'->>'gpu', '0') = '0'
       AND EXISTS (SELECT 1 FROM units u WHERE u.kind = 'slot' AND u.scope = p.name AND u.lease_id IS NULL
           AND NOT u.retired)) AS late_pools,
    -- a pool that was made just now is served within seconds
    (SELECT coalesce(array_agg(p.name ORDER BY p.name), '{}') FROM pools p
     WHERE p.created_at < hostler_now() - interval '15 seconds' AND (
        (p.state = 'active' AND NOT EXISTS (SELECT 1 FROM workers w WHERE 'pool.' || p.name = ANY(w.queues)
            AND w.heartbeat_at > hostler_now() - make_interval(secs => :silent_s))
         AND EXISTS (SELECT 1 FROM tasks t WHERE t.pool = p.name AND t.state = 'queued'
            AND t.kind IN ('create', 'restart')))
        OR (NOT EXISTS (SELECT 1 FROM workers w WHERE 'pool.' || p.name || '.control' = ANY(w.queues)
            AND w.heartbeat_at > hostler_now() - make_interval(secs => :silent_s))
         AND EXISTS (SELECT 1 FROM tasks t WHERE t.pool = p.name AND t.state = 'queued'
            AND t.kind NOT IN ('create', 'restart'))))) AS silent_pools,
    (SELECT jsonb_object_agg(name, jsonb_array_length(attributes->'orphans')) FROM nodes
     WHERE jsonb_typeof(attributes->'orphans') = 'array') AS orphans,
    (SELECT coalesce(array_agg(DISTINCT d.key || ': ' || (d.value->>'message')), '{}')
     FROM nodes n, jsonb_each(CASE WHEN jsonb_typeof(n.attributes->'defects') = 'object'
         THEN n.attributes->'defects' ELSE '{}' END) AS d
     WHERE CAST(d.value->>'at' AS float8) > extract(epoch FROM hostler_now()) - :defects_s) AS defects,
    (SELECT count(*) FROM replicas WHERE released_at IS NULL AND state IN ('stopped', 'failed')
       AND state_since < hostler_now() - make_interval(secs => :cleanup_late_s)) AS uncleared
"""
)


def summary(
    connection: Connection,
    silent_s: float,
    deaf_s: float,
    launch_late_s: float,
    cleanup_late_s: float,
    defects_s: float,
) -> Any:
    """Counts and ages of one moment; ages are seconds, None when there is none.

    A worker is deaf when canaries were sent for ``deaf_s`` that it did not hear.
    """
    values = {
        "silent_s": silent_s, "deaf_s": deaf_s, "launch_late_s": launch_late_s, "cleanup_late_s": cleanup_late_s,
        "defects_s": defects_s,
    }  # fmt: skip
    return connection.execute(_SUMMARY, values).one()


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
