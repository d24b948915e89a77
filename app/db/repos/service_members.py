"""Members of services: the replicas that stand for one, those by which is planned and those that users see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.tunnels import BEHIND_TUNNEL

#: Of a member, what a plan needs. ``suspect``: its host, or each that serves its pool, is silent, so that what is known
#: of it is old.
_PLANNED = """m.service_id, m.replica_id, m.revision, m.ordinal, m.tries, m.replaces, m.created_at,
    r.state, r.desired_state, r.reason, r.message, r.state_since, r.timestamps, r.lifetime_ends_at, r.released_at,
    coalesce(n.attributes ? 'silent', r.node IS NULL AND EXISTS (SELECT 1 FROM nodes)
        AND NOT EXISTS (SELECT 1 FROM nodes o WHERE NOT o.attributes ? 'silent'
            AND (o.pools IS NULL OR r.pool = ANY(o.pools)))) AS suspect"""
_LAST_ATTEMPT = "LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt"
#: And what its users look at besides.
_SHOWN = """r.attempt, r.pool, r.engine, r.model_name, r.node, r.host, r.port, r.base_url, r.spec->'recipe' AS recipe,
    a.job_id, (SELECT array_agg(l.number ORDER BY l.number) FROM leases l
        WHERE l.attempt_id = a.id AND l.kind IN ('gpu', 'pool_gpu') AND l.released_at IS NULL) AS gpus"""
_MEMBERS = """
SELECT {columns}
FROM services s JOIN service_members m ON m.service_id = s.id JOIN replicas r ON r.id = m.replica_id
LEFT JOIN nodes n ON n.name = r.node {more}
WHERE s.id = ANY(:ids) AND NOT m.past
ORDER BY m.service_id, m.ordinal, m.created_at, m.replica_id
"""
_READ_PLANNED = text(_MEMBERS.format(columns=_PLANNED, more=""))
_READ_SHOWN = text(_MEMBERS.format(columns=f"{_PLANNED}, {_SHOWN}", more=_LAST_ATTEMPT))
#: What answers: as the gateway routes, a backend that cannot be asked proves nothing about its engine.
_READY = text(
    f"""
SELECT m.service_id, s.name AS service, m.replica_id, m.ordinal, m.revision, s.recipe, r.attempt, r.pool, r.engine,
    r.model_name, r.node, r.host, r.port, r.base_url, r.spec->'resolved'->'config' AS config,
    a.job_id
FROM service_members m JOIN services s ON s.id = m.service_id JOIN replicas r ON r.id = m.replica_id {_LAST_ATTEMPT}
WHERE m.service_id = :id AND r.state IN ('ready', 'unreachable') AND r.desired_state = 'running'
ORDER BY m.ordinal, m.created_at, m.replica_id
"""
)
_TARGETS = text(
    f"""
SELECT r.id AS replica_id, r.labels->>'service_id' AS service_id, s.name AS service, s.recipe, m.ordinal, m.revision,
    r.pool, r.engine, r.model_name, r.node, r.host, r.port, r.base_url, {BEHIND_TUNNEL} AS behind_tunnel
FROM replicas r LEFT JOIN service_members m ON m.replica_id = r.id LEFT JOIN services s ON s.id = m.service_id
WHERE r.state = 'ready' AND r.port IS NOT NULL ORDER BY r.id
"""
)
_INSERT = text(
    "INSERT INTO service_members (replica_id, service_id, revision, ordinal, tries, replaces)"
    " VALUES (:replica_id, :service_id, :revision, :ordinal, :tries, :replaces)"
)


def insert(connection: Connection, members: Sequence[Mapping[str, Any]]) -> None:
    """Add members: ``replica_id, service_id, revision, ordinal, tries, replaces`` each."""
    if members:
        connection.execute(_INSERT, list(members))


def move(connection: Connection, service_id: str, before: int, after: int) -> None:
    """Count who lives of one revision as of another, which runs the same. With the service's row locked."""
    query = text(
        "UPDATE service_members m SET revision = :after FROM replicas r WHERE m.service_id = :id"
        " AND m.revision = :before AND r.id = m.replica_id AND r.released_at IS NULL"
    )
    connection.execute(query, {"id": service_id, "before": before, "after": after})


def planned(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """Those by which is planned: all but what is gone and was replaced."""
    return list(connection.execute(_READ_PLANNED, {"ids": list(service_ids)})) if service_ids else []


def mark_past(connection: Connection, replica_ids: Sequence[str]) -> None:
    """They were replaced and are gone: no plan needs them any more, until somebody restarts one (a trigger says so).

    One that is being restarted this moment is left out, and who restarts one after this waits until it is marked:
    otherwise the mark could come last, and hide a replica that runs.
    """
    if replica_ids:
        query = text(
            "WITH gone AS MATERIALIZED (SELECT id FROM replicas WHERE id = ANY(:ids) AND released_at IS NOT NULL"
            " ORDER BY id FOR SHARE SKIP LOCKED)"
            " UPDATE service_members SET past = true WHERE replica_id IN (SELECT id FROM gone)"
        )
        connection.execute(query, {"ids": list(replica_ids)})


def shown(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """The same, with what users see of them."""
    return list(connection.execute(_READ_SHOWN, {"ids": list(service_ids)})) if service_ids else []


def ends_of(connection: Connection, replica_ids: Sequence[str]) -> dict[str, Any]:
    """Replicas by id, as far as they are kept: ``replica_id, state, state_since, reason, message``."""
    if not replica_ids:
        return {}
    query = text("SELECT id AS replica_id, state, state_since, reason, message FROM replicas WHERE id = ANY(:ids)")
    return {row.replica_id: row for row in connection.execute(query, {"ids": list(replica_ids)})}


def ready(connection: Connection, service_id: str) -> list[Any]:
    """Members that answer, by place."""
    return list(connection.execute(_READY, {"id": service_id}))


def targets(connection: Connection) -> list[Any]:
    """Every ready replica that has a port, of a service or not."""
    return list(connection.execute(_TARGETS))
