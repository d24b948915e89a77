"""Gangs: members of a service that waits for its first launch, which get their capacity together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import nodes
from app.db.repos.gateways import PORT_IS_FREE
from app.domain.placement import Host, Place, Units

_READ = "SELECT id, count, desired_state, good_revision FROM services WHERE id = :id"
_COLUMNS = """t.id AS task_id, t.attempt AS number, t.request_id, t.priority AS task_priority, t.seq,
    CAST(extract(epoch FROM hostler_now() - t.created_at) AS float8) AS waited_s,
    r.*, p.gpus AS pool_gpus, b.host_bound"""
_JOINED = """tasks t JOIN replicas r ON r.id = t.replica_id AND r.attempt = t.attempt
    JOIN pools p ON p.name = r.pool JOIN backends b ON b.name = r.backend"""
_WAITS = "t.state = 'queued' AND t.kind IN ('create', 'restart') AND r.state = 'pending'"
_ALL = f"""
SELECT {_COLUMNS} FROM {_JOINED} JOIN service_members m ON m.replica_id = r.id
JOIN service_members mine ON mine.service_id = m.service_id AND mine.revision = m.revision
JOIN tasks his ON his.replica_id = mine.replica_id AND his.id = :task_id AND his.pool = r.pool
WHERE m.service_id = :id AND {_WAITS} AND t.arguments->>'gang' = :id AND r.desired_state = 'running'
ORDER BY t.id
"""
_ONE = text(f"SELECT {_COLUMNS} FROM {_JOINED} WHERE t.id = :task_id AND {_WAITS} FOR UPDATE OF t")
_ALIVE = text(
    "SELECT count(*) FROM service_members m JOIN replicas r ON r.id = m.replica_id WHERE m.service_id = :id"
    " AND r.desired_state = 'running' AND r.state NOT IN ('stopping', 'stopped', 'failed')"
)
_SLOTS = text(
    """
SELECT p.slots, p.gpus,
    (SELECT count(*) FILTER (WHERE lease_id IS NULL AND NOT retired) - count(*) FILTER (WHERE retired
        AND lease_id IS NOT NULL) FROM units WHERE kind = 'slot' AND scope = p.name) AS slots_free,
    (SELECT count(*) FROM units WHERE kind = 'pool_gpu' AND scope = p.name AND lease_id IS NULL
        AND NOT retired) AS gpus_free
FROM pools p WHERE p.name = :pool
"""
)
_HOSTS = text(
    f"""
SELECT scope, count(*) FILTER (WHERE kind = 'gpu') AS gpus, count(*) FILTER (WHERE kind = 'port') AS ports,
    count(*) FILTER (WHERE kind = 'gpu' AND lease_id IS NULL) AS gpus_free,
    count(*) FILTER (WHERE kind = 'port' AND lease_id IS NULL AND {PORT_IS_FREE}) AS ports_free
FROM units WHERE kind IN ('gpu', 'port') AND NOT retired GROUP BY scope ORDER BY scope
"""
)
# Their attempts are open: from here on they are launches that hold their capacity, as of a worker that died.
_TOOK = text("UPDATE tasks SET claims = claims + 1, claimed_by = :worker, version = version + 1 WHERE id = ANY(:ids)")
_WAITING = text(
    """
SELECT DISTINCT ON (s.id) s.id, t.id AS task_id FROM services s JOIN service_members m ON m.service_id = s.id
JOIN tasks t ON t.replica_id = m.replica_id JOIN replicas r ON r.id = t.replica_id
WHERE s.desired_state = 'running' AND s.good_revision IS NULL AND t.state = 'queued' AND t.arguments ? 'gang'
  AND r.state = 'pending'
ORDER BY s.id, t.seq LIMIT :limit
"""
)


def lock_service(connection: Connection, service_id: str) -> Any | None:
    """(id, count, desired_state, good_revision), locked as whoever reconciles it does; None when there is none."""
    return connection.execute(text(f"{_READ} FOR NO KEY UPDATE"), {"id": service_id}).first()


def read_service(connection: Connection, service_id: str) -> Any | None:
    """The same, not locked."""
    return connection.execute(text(_READ), {"id": service_id}).first()


def lock_waiting(connection: Connection, service_id: str | None, task_id: str) -> list[Any]:
    """What waits with the create ``task_id``: the members of the service (None: only itself) in its revision and pool,
    with their tasks locked by id. Rows of replicas with ``task_id``, ``number``, ``waited_s``, ``host_bound``..."""
    if service_id is None:
        return list(connection.execute(_ONE, {"task_id": task_id}))
    return list(connection.execute(text(f"{_ALL} FOR UPDATE OF t"), {"id": service_id, "task_id": task_id}))


def read_waiting(connection: Connection, service_id: str, task_id: str) -> list[Any]:
    """The same of a service, not locked."""
    return list(connection.execute(text(_ALL), {"id": service_id, "task_id": task_id}))


def count_alive(connection: Connection, service_id: str) -> int:
    """Members that wait, launch or run and are wanted."""
    return int(connection.execute(_ALIVE, {"id": service_id}).scalar_one())


def place(connection: Connection, pool: str, *, host_bound: bool) -> Place:
    """What the pool and, where it matters, every host has."""
    row = connection.execute(_SLOTS, {"pool": pool}).one()
    hosts = None
    if host_bound:
        others = nodes.not_serving(connection, pool)
        hosts = [
            Host(one.scope, Units(one.gpus, one.gpus_free), Units(one.ports, one.ports_free))
            for one in connection.execute(_HOSTS)
            if one.scope not in others
        ]
    gpus = None if row.gpus is None else Units(row.gpus, row.gpus_free)
    return Place(pool, Units(row.slots, row.slots_free), gpus, hosts)


def record_taken(connection: Connection, task_ids: Sequence[str], worker: str) -> None:
    """Whoever claims one of them now finds its capacity taken."""
    connection.execute(_TOOK, {"ids": list(task_ids), "worker": worker})


def waiting(connection: Connection, limit: int) -> list[tuple[str, str]]:
    """(service, one of its waiting creates) of every gang that waits."""
    return [(row.id, row.task_id) for row in connection.execute(_WAITING, {"limit": limit})]
