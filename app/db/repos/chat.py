"""The service that answers the chat, and whether anything was ready yet."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import knows_services

_SERVICE = text(
    """
SELECT s.id, s.good_revision IS NOT NULL OR EXISTS (
    SELECT 1 FROM service_members m JOIN replicas r ON r.id = m.replica_id
    WHERE m.service_id = s.id AND r.timestamps ? 'ready') AS was_ready
FROM services s WHERE (s.name = :name OR s.id = :name) AND s.desired_state = 'running'
"""
)
_ANY = text("SELECT EXISTS (SELECT 1 FROM replicas WHERE state = 'ready') OR EXISTS ("
            "SELECT 1 FROM replicas WHERE timestamps ? 'ready')")  # fmt: skip


def find_service(connection: Connection, name: str) -> Any | None:
    """(id, was_ready) of the running service of that name or id, None without one; ``was_ready``: a replica of it."""
    if not knows_services(connection):
        return None
    return connection.execute(_SERVICE, {"name": name}).first()


def was_any_ready(connection: Connection) -> bool:
    """Whether any replica is, or was, ready."""
    return bool(connection.execute(_ANY).scalar_one())
