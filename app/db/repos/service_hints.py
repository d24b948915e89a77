"""Hints that something of a service changed, and which services are due for a look."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from app.db.repos.newer import knows_services

#: Due by the clock. A time further ahead than it is ever set was left by a clock that was set back.
_DUE = text(
    """
SELECT id FROM services WHERE look_at <= hostler_now()
UNION SELECT id FROM services WHERE look_at > hostler_now() + make_interval(secs => :ahead_s)
UNION SELECT service_id FROM (SELECT service_id FROM service_hints ORDER BY id LIMIT :limit) AS hinted
LIMIT :limit
"""
)


def due(connection: Connection, limit: int, ahead_s: float) -> list[str]:
    """Services that something may have to be done about: hinted at, or due by the clock. Also ids that are none."""
    return list(connection.execute(_DUE, {"limit": limit, "ahead_s": ahead_s}).scalars())


def read(connection: Connection, service_ids: Sequence[str]) -> dict[str, list[int]]:
    """Ids of the hints that are there now, by service."""
    query = text("SELECT id, service_id FROM service_hints WHERE service_id = ANY(:ids)")
    found: dict[str, list[int]] = {}
    for row in connection.execute(query, {"ids": list(service_ids)}):
        found.setdefault(row.service_id, []).append(row.id)
    return found


def add_of_hosts(connection: Connection, nodes: Sequence[str]) -> None:
    """Have the services looked at that have replicas on these hosts, or had them there last, or on none."""
    if not nodes or not knows_services(connection):
        return
    query = text(
        "INSERT INTO service_hints (service_id) SELECT DISTINCT m.service_id FROM service_members m"
        " JOIN replicas r ON r.id = m.replica_id JOIN services s ON s.id = m.service_id"
        " WHERE (r.node = ANY(:nodes) OR r.node IS NULL) AND s.ended_at IS NULL"
    )
    connection.execute(query, {"nodes": list(nodes)})


def take(connection: Connection, ids: Sequence[int]) -> None:
    """They were followed."""
    if ids:
        connection.execute(text("DELETE FROM service_hints WHERE id = ANY(:ids)"), {"ids": list(ids)})


def take_all(connection: Connection, service_id: str) -> None:
    """The same for all that are there now; what is committed later is seen by the next one."""
    connection.execute(text("DELETE FROM service_hints WHERE service_id = :id"), {"id": service_id})


def drop_ownerless(connection: Connection, service_ids: Sequence[str]) -> None:
    """Hints of what is no service: it was forgotten, or a replica's label is older than services are."""
    connection.execute(
        text(
            "DELETE FROM service_hints h WHERE h.service_id = ANY(:ids)"
            " AND NOT EXISTS (SELECT 1 FROM services s WHERE s.id = h.service_id)"
        ),
        {"ids": list(service_ids)},
    )
