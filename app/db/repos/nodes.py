"""Worker hosts, the processes on them and what their replicas hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import AdaptedToServices

#: A node whose heartbeat is older than this is shown as lost. Heartbeats come every few seconds.
SILENT_S = 20.0
_NODE = AdaptedToServices(
    lambda known: (
        f"""
SELECT {"n.pools" if known else "NULL AS pools"},
       n.name, n.address, n.cpus, n.memory_bytes, n.gpus, n.version, n.attributes, n.first_seen_at, n.heartbeat_at,
       n.heartbeat_at > hostler_now() - make_interval(secs => :silent_s) AS alive,
       coalesce((SELECT jsonb_agg(jsonb_build_object('role', w.role, 'pid', w.pid, 'queues', w.queues,
                     'concurrency', w.concurrency, 'started_at', w.started_at, 'heartbeat_at', w.heartbeat_at)
                     ORDER BY w.role, w.pid)
                 FROM workers w WHERE w.node = n.name
                 AND w.heartbeat_at > hostler_now() - make_interval(secs => :silent_s)), '[]') AS workers,
       coalesce((SELECT jsonb_agg(jsonb_build_object('kind', l.kind, 'number', l.number, 'holder', l.holder,
                     'acquired_at', l.acquired_at) ORDER BY l.kind, l.number)
                 FROM units u JOIN leases l ON l.id = u.lease_id
                 WHERE u.scope = n.name AND u.kind IN ('port', 'gpu') AND u.lease_id IS NOT NULL), '[]') AS leases
FROM nodes n
WHERE CASE WHEN CAST(:name AS text) IS NULL THEN CAST(:after AS text) IS NULL OR n.name > :after ELSE n.name = :name END
ORDER BY n.name LIMIT :limit
"""
    )
)


_OTHERS = AdaptedToServices(
    lambda known: f"SELECT name FROM nodes WHERE {'NOT (:pool = ANY(pools))' if known else ':pool IS NULL'}"
)


def not_serving(connection: Connection, pool: str) -> set[str]:
    """Hosts whose workers serve other pools, and not this one."""
    return set(connection.execute(_OTHERS.of(connection), {"pool": pool}).scalars())


def page(connection: Connection, *, after: str | None, limit: int, silent_s: float) -> list[Any]:
    """Up to ``limit`` nodes by name; one is alive while its heartbeat is younger than ``silent_s``."""
    values = {"name": None, "after": after, "limit": limit, "silent_s": silent_s}
    return list(connection.execute(_NODE.of(connection), values))


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM nodes")).scalar_one())


def read(connection: Connection, name: str, silent_s: float) -> Any | None:
    values = {"name": name, "after": None, "limit": 1, "silent_s": silent_s}
    return connection.execute(_NODE.of(connection), values).first()
