"""Local ends: by which port of its own one host reaches an attempt on a network that it cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from app.db.repos.newer import AdaptedToServices

_LEADING = AdaptedToServices(
    lambda known: (
        "SELECT t.attempt_id, t.port, t.state, t.message, t.to_host = r.host AND t.to_port = r.port AS leads_there"
        " FROM tunnels t JOIN attempts a ON a.id = t.attempt_id"
        " JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number"
        " WHERE t.node = :node AND t.attempt_id = ANY(:attempts)"
        if known
        # a schema without tunnels has none
        else "SELECT CAST(NULL AS bigint) AS attempt_id, CAST(NULL AS integer) AS port, '' AS state, '' AS message,"
        " false AS leads_there WHERE :node IS NULL AND 0 = ANY(:attempts)"
    )
)

_ENDS = AdaptedToServices(
    lambda known: (
        "SELECT a.replica_id, a.number, t.port, t.state = 'up' AND t.to_host = r.host AND t.to_port = r.port AS is_open"
        " FROM tunnels t JOIN attempts a ON a.id = t.attempt_id AND a.released_at IS NULL"
        " JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number WHERE t.node = :node"
        if known
        else "SELECT '' AS replica_id, 0 AS number, 0 AS port, false AS is_open WHERE CAST(:node AS text) IS NULL"
    )
)


def ends(connection: Connection, node: str) -> list[Any]:
    """(replica_id, number, port, is_open) of every local end of ``node``; open is one that leads to its attempt now."""
    return list(connection.execute(_ENDS.of(connection), {"node": node}))


def leading(connection: Connection, node: str, attempt_ids: Sequence[int]) -> list[Any]:
    """(attempt_id, port, state, message, leads_there) of the local ends of ``node`` for these attempts.

    ``leads_there``: its other end is where the attempt answers now; a requeue moves that.
    """
    return list(connection.execute(_LEADING.of(connection), {"node": node, "attempts": list(attempt_ids)}))
