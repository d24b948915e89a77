"""Local ends: by which port of its own one host reaches an attempt on a network that it cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import AdaptedToServices

#: In SQL about a replica ``r``: only a tunnel leads to it.
BEHIND_TUNNEL = "coalesce(r.spec->'resolved'->'backend_options'->'tunnel' = CAST('true' AS jsonb), false)"

# attempts on hosts of ours have a node and need no tunnel
_IS_WANTED = """
a.released_at IS NULL AND a.node IS NULL AND r.host IS NOT NULL AND r.port IS NOT NULL
    AND r.spec->'resolved'->'backend_options'->'tunnel' = CAST('true' AS jsonb)
    AND jsonb_typeof(r.spec->'resolved'->'backend_options'->'ssh') = 'object'
    -- a gateway routes to all; others ask only what their workers serve
    AND (EXISTS (SELECT 1 FROM gateways g WHERE g.node = :node)
        OR r.pool = ANY(CAST((SELECT pools FROM nodes WHERE name = :node) AS text[]))
        OR (SELECT pools FROM nodes WHERE name = :node) IS NULL)
"""
_WANTED = text(
    f"""
SELECT a.id AS attempt_id, a.name, r.host, r.port, r.spec->'resolved'->'backend_options'->'ssh' AS ssh,
    t.port AS local_port, t.state, t.to_host, t.to_port
FROM attempts a JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number
    LEFT JOIN tunnels t ON t.attempt_id = a.id AND t.node = :node
WHERE {_IS_WANTED}
ORDER BY a.id
"""
)
_WITHOUT_END = AdaptedToServices(
    lambda known: (
        "SELECT r.id FROM attempts a JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number"
        " LEFT JOIN tunnels t ON t.attempt_id = a.id AND t.node = :node"
        f" WHERE {_IS_WANTED} AND t.attempt_id IS NULL ORDER BY r.id"
        if known
        else "SELECT '' AS id WHERE CAST(:node AS text) IS NULL"
    )
)
_LEFT = text(
    """
SELECT t.attempt_id, t.port FROM tunnels t JOIN attempts a ON a.id = t.attempt_id
    LEFT JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number
WHERE t.node = :node AND (a.released_at IS NOT NULL OR r.host IS NULL OR r.port IS NULL)
"""
)

_LEADING = AdaptedToServices(
    lambda known: (
        "SELECT attempt_id, port, state, message, to_host, to_port FROM tunnels"
        " WHERE node = :node AND attempt_id = ANY(:attempts)"
        if known
        # a schema without tunnels has none
        else "SELECT 0 AS attempt_id, 0 AS port, '' AS state, '' AS message, '' AS to_host, 0 AS to_port"
        " WHERE CAST(:node AS text) IS NULL AND 0 = ANY(:attempts)"
    )
)
_OF_REPLICA = AdaptedToServices(
    lambda known: (
        "SELECT t.node, t.port, t.state, t.message, t.since FROM tunnels t"
        " JOIN attempts a ON a.id = t.attempt_id WHERE a.replica_id = :id AND a.released_at IS NULL ORDER BY t.node"
        if known
        else "SELECT '' AS node, 0 AS port, '' AS state, '' AS message, hostler_now() AS since"
        " WHERE CAST(:id AS text) IS NULL"
    )
)
_STANDING = AdaptedToServices(
    lambda known: (
        "SELECT a.replica_id, r.pool, t.node, t.state, t.message,"
        " CAST(extract(epoch FROM hostler_now() - t.since) AS float8) AS seconds"
        " FROM tunnels t JOIN attempts a ON a.id = t.attempt_id AND a.released_at IS NULL"
        " JOIN replicas r ON r.id = a.replica_id ORDER BY t.state = 'up', t.since, a.replica_id, t.node"
        if known
        else "SELECT '' AS replica_id, '' AS pool, '' AS node, '' AS state, '' AS message, 0.0 AS seconds WHERE false"
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
    """(attempt_id, port, state, message, to_host, to_port) of the local ends of ``node`` for these attempts."""
    return list(connection.execute(_LEADING.of(connection), {"node": node, "attempts": list(attempt_ids)}))


def of_replica(connection: Connection, replica_id: str) -> list[Any]:
    """(node, port, state, message, since) of every local end of its open attempt."""
    return list(connection.execute(_OF_REPLICA.of(connection), {"id": replica_id}))


def standing(connection: Connection) -> list[Any]:
    """(replica_id, pool, node, state, message, seconds it stands so) of every local end, those that are not up first,
    the longest time first."""
    return list(connection.execute(_STANDING.of(connection)))


def wanted(connection: Connection, node: str) -> list[Any]:
    """(attempt_id, name, host, port, ssh, local_port, state, to_host, to_port) of what ``node`` reaches by tunnels."""
    return list(connection.execute(_WANTED, {"node": node}))


def without_end(connection: Connection, node: str) -> list[str]:
    """Ids of the replicas that ``node`` reaches by tunnels only, and for which it has no local end yet."""
    return list(connection.execute(_WITHOUT_END.of(connection), {"node": node}).scalars())


def left(connection: Connection, node: str) -> list[Any]:
    """(attempt_id, port) of local ends of ``node`` whose attempt is gone or answers nowhere now."""
    return list(connection.execute(_LEFT, {"node": node}))


def lock_attempt(connection: Connection, attempt_id: int) -> bool:
    """Keep the attempt from being released until the transaction ends; False when it was."""
    query = text("SELECT 1 FROM attempts WHERE id = :id AND released_at IS NULL FOR SHARE")
    return connection.execute(query, {"id": attempt_id}).first() is not None


def is_routed(connection: Connection, attempt_id: int, node: str) -> bool:
    """Whether a gateway of ``node`` may be routing to a local end that the attempt had, while it has none."""
    query = text(
        "SELECT 1 FROM attempts a JOIN gateway_servers g ON g.replica_id = a.replica_id AND g.attempt = a.number"
        " WHERE a.id = :id AND g.node = :node"
        " AND NOT EXISTS (SELECT 1 FROM tunnels t WHERE t.attempt_id = a.id AND t.node = :node)"
    )
    return connection.execute(query, {"id": attempt_id, "node": node}).first() is not None


def port_of(connection: Connection, attempt_id: int, node: str) -> int | None:
    """The port of the local end."""
    query = text("SELECT port FROM tunnels WHERE attempt_id = :id AND node = :node")
    return connection.execute(query, {"id": attempt_id, "node": node}).scalar()


def insert(connection: Connection, attempt_id: int, node: str, port: int, to_host: str, to_port: int) -> None:
    """A local end that is about to be opened."""
    connection.execute(
        text(
            "INSERT INTO tunnels (attempt_id, node, port, to_host, to_port)"
            " VALUES (:id, :node, :port, :to_host, :to_port)"
        ),
        {"id": attempt_id, "node": node, "port": port, "to_host": to_host, "to_port": to_port},
    )


def record(
    connection: Connection, attempt_id: int, node: str, state: str, message: str, to_host: str, to_port: int
) -> bool:
    """Write how it stands; False when there is no such local end or nothing changed."""
    query = text(
        "UPDATE tunnels SET since = CASE WHEN state = :state THEN since ELSE hostler_now() END,"
        " state = :state, message = :message, to_host = :to_host, to_port = :to_port"
        " WHERE attempt_id = :id AND node = :node"
        " AND (state, message, to_host, to_port) IS DISTINCT FROM (:state, :message, :to_host, :to_port)"
    )
    values = {
        "id": attempt_id, "node": node, "state": state, "message": message, "to_host": to_host, "to_port": to_port
    }  # fmt: skip
    return bool(connection.execute(query, values).rowcount)


def delete(connection: Connection, attempt_id: int, node: str, port: int) -> bool:
    """Forget a local end; False when it is not that one any more."""
    query = text("DELETE FROM tunnels WHERE attempt_id = :id AND node = :node AND port = :port")
    return bool(connection.execute(query, {"id": attempt_id, "node": node, "port": port}).rowcount)
