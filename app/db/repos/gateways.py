"""Gateways and what each may be routing to.

A row of ``gateway_servers`` is written before its server is routed and deleted after HAProxy confirmed that the server
is gone. While it stands, its port is given to nobody (``PORT_IS_FREE``), whatever became of the attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

#: A gateway that was heard of within this time takes part in drains. Heartbeats come every two seconds.
LIVE_S = 10.0

#: Appended to every look for a free port, whose unit is ``units``. Whoever reads that a port is free reads the rows of
#: its former attempts too: they are written under that attempt's lock, and so before its release.
PORT_IS_FREE = """NOT EXISTS (SELECT 1 FROM gateway_servers g
    WHERE g.node = units.scope AND g.port = units.number AND units.kind = 'port')"""

_HEARTBEAT = text(
    "INSERT INTO gateways (id, node, pid, version, haproxy_up) VALUES (:id, :node, :pid, :version, :up)"
    " ON CONFLICT (id) DO UPDATE SET node = excluded.node, pid = excluded.pid, version = excluded.version,"
    " haproxy_up = excluded.haproxy_up, heartbeat_at = hostler_now()"
)
# FOR SHARE waits for a release that is under way, and makes one that comes wait: then it is either seen here or comes
# after the row, and whoever looks for the port sees that
_HOLD = text(
    """
WITH alive AS MATERIALIZED (
    SELECT a.replica_id, a.number, w.server, coalesce(w.node, a.node) AS node, w.port
    FROM unnest(CAST(:servers AS text[]), CAST(:replicas AS text[]), CAST(:attempts AS integer[]),
                CAST(:ports AS integer[]), CAST(:nodes AS text[])) AS w(server, replica_id, attempt, port, node)
    JOIN attempts a ON a.replica_id = w.replica_id AND a.number = w.attempt
    WHERE a.replica_id = ANY(:replicas) AND a.released_at IS NULL ORDER BY a.id FOR SHARE OF a
),
made AS (
    INSERT INTO gateway_servers (gateway, server, replica_id, attempt, node, port)
    SELECT :gateway, server, replica_id, number, node, port FROM alive ON CONFLICT (gateway, server) DO NOTHING
)
SELECT server FROM alive
"""
)
_LET_GO = text("DELETE FROM gateway_servers WHERE gateway = :gateway AND server = ANY(:servers) RETURNING node")
_IDLE = text(
    "UPDATE gateway_servers SET idle_at = hostler_now()"
    " WHERE gateway = :gateway AND server = ANY(:servers) AND idle_at IS NULL RETURNING replica_id, attempt"
)
_PAGE = text(
    """
SELECT g.id, g.node, g.pid, g.version, g.haproxy_up, g.first_seen_at, g.heartbeat_at,
       g.heartbeat_at > hostler_now() - make_interval(secs => :live_s) AS live,
       (SELECT count(*) FROM gateway_servers s WHERE s.gateway = g.id) AS servers
FROM gateways g WHERE (CAST(:after AS text) IS NULL OR g.id > :after) ORDER BY g.id LIMIT :limit
"""
)
_FORGET_SILENT = text(
    "DELETE FROM gateways WHERE heartbeat_at < hostler_now() - make_interval(secs => :silent_s) RETURNING id, node"
)


def heartbeat(connection: Connection, *, gateway: str, node: str, pid: int, version: str, up: bool) -> None:
    """This gateway's agent is alive; ``up`` when its HAProxy answered. A gateway that was forgotten is back with it."""
    connection.execute(_HEARTBEAT, {"id": gateway, "node": node, "pid": pid, "version": version, "up": up})


def hold(connection: Connection, gateway: str, servers: Sequence[tuple[str, str, int, int, str | None]]) -> set[str]:
    """Write rows for ``(server, replica id, attempt, port, host)``; returns those whose attempt is not gone, held now.

    ``host`` is whose port that is; None: that on which the attempt runs.
    """
    if not servers:
        return set()
    names, replicas, attempts, ports, nodes = (list(column) for column in zip(*servers, strict=True))
    values = {
        "gateway": gateway, "servers": names, "replicas": replicas, "attempts": attempts, "ports": ports, "nodes": nodes
    }  # fmt: skip
    return {row[0] for row in connection.execute(_HOLD, values)}


def held(connection: Connection, gateway: str) -> set[str]:
    """The servers of this gateway's rows."""
    query = text("SELECT server FROM gateway_servers WHERE gateway = :gateway")
    return {row[0] for row in connection.execute(query, {"gateway": gateway})}


def let_go(connection: Connection, gateway: str, servers: Sequence[str]) -> set[str]:
    """Delete rows; returns the hosts whose ports may be free by that."""
    found = connection.execute(_LET_GO, {"gateway": gateway, "servers": list(servers)})
    return {row[0] for row in found if row[0]}


def record_idle(connection: Connection, gateway: str, servers: Sequence[str]) -> list[tuple[str, int]]:
    """Nothing is in flight there any more and nothing comes; returns (replica id, attempt) of those that are new."""
    return [(row[0], row[1]) for row in connection.execute(_IDLE, {"gateway": gateway, "servers": list(servers)})]


def page(connection: Connection, *, after: str | None, limit: int) -> list[Any]:
    """Up to ``limit`` gateways by id."""
    return list(connection.execute(_PAGE, {"after": after, "limit": limit, "live_s": LIVE_S}))


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM gateways")).scalar_one())


def lock(connection: Connection, gateway: str) -> Any | None:
    """The gateway, locked until the transaction ends; None when there is none."""
    query = text(
        "SELECT id, node, heartbeat_at > hostler_now() - make_interval(secs => :live_s) AS live"
        " FROM gateways WHERE id = :id FOR UPDATE"
    )
    return connection.execute(query, {"id": gateway, "live_s": LIVE_S}).first()


def forget(connection: Connection, gateway: str) -> None:
    """Delete it and all its rows."""
    connection.execute(text("DELETE FROM gateways WHERE id = :id"), {"id": gateway})


def forget_silent(connection: Connection, silent_s: float) -> list[Any]:
    """Delete those that were not heard of for so long; returns (id, node)."""
    return list(connection.execute(_FORGET_SILENT, {"silent_s": silent_s}))
