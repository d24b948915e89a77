"""Replicas that serve, and which of them began or ceased to since one looked last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.tunnels import BEHIND_TUNNEL

_READY = (
    "SELECT r.id, r.model_name, r.engine, r.host, r.port, r.spec->'capabilities' AS capabilities,"
    f" {BEHIND_TUNNEL} AS behind_tunnel FROM replicas r WHERE r.state = 'ready'"
)


def all_ready(connection: Connection) -> list[Any]:
    """(id, model_name, engine, host, port, capabilities, behind_tunnel) of every ready replica."""
    return list(connection.execute(text(_READY)))


def named(connection: Connection, ids: Sequence[str]) -> list[Any]:
    """Those of ``ids`` that are ready."""
    return list(connection.execute(text(f"{_READY} AND r.id = ANY(:ids)"), {"ids": list(ids)}))


def touched(connection: Connection, since: int) -> list[str]:
    """Replicas that a transaction from ``since`` on made ready or took out of it."""
    query = text(
        "SELECT DISTINCT replica_id FROM events WHERE xid >= CAST(CAST(:since AS text) AS xid8)"
        " AND replica_id IS NOT NULL AND 'ready' IN (from_state, to_state)"
    )
    return [row.replica_id for row in connection.execute(query, {"since": str(since)})]
