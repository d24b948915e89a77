"""The service that answers the chat, and whether anything was ready yet."""

from __future__ import annotations

from collections.abc import Sequence
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
_ANY = text(
    """
SELECT EXISTS (
    SELECT 1 FROM replicas WHERE (state = 'ready' OR timestamps ? 'ready') AND engine <> ALL(:without)
    AND (CAST(:names AS text[]) IS NULL OR model_name = ANY(:names)))
"""
)


def find_service(connection: Connection, name: str) -> Any | None:
    """(id, was_ready) of the running service of that name or id, None without one; ``was_ready``: a replica of it."""
    if not knows_services(connection):
        return None
    return connection.execute(_SERVICE, {"name": name}).first()


def was_any_ready(connection: Connection, names: Sequence[str] | None, without: Sequence[str]) -> bool:
    """Whether a replica of one of these models (None: of any) is, or was, ready; ``without`` are engines that serve
    none."""
    asked = {"names": None if names is None else list(names), "without": list(without)}
    return bool(connection.execute(_ANY, asked).scalar_one())
