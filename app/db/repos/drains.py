"""Drains: what was routed and is asked to end is left alone until nothing is in flight or its time is over."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.gateways import LIVE_S

#: Whether ``r`` (a replica) is being drained. An end further ahead than it was ever set was left by a clock set back.
IS_DRAINING = """EXISTS (SELECT 1 FROM drains d WHERE d.replica_id = r.id AND d.attempt = r.attempt
    AND d.until > hostler_now() AND d.until <= hostler_now() + make_interval(secs => d.seconds + 1))"""

_IN_USE = """EXISTS (SELECT 1 FROM gateway_servers g JOIN gateways w ON w.id = g.gateway
    WHERE g.replica_id = :replica_id AND g.attempt = :attempt AND g.idle_at IS NULL
      AND w.heartbeat_at > hostler_now() - make_interval(secs => :live_s))"""
_BEGIN = text(
    "INSERT INTO drains (replica_id, attempt, seconds, until)"
    " SELECT :replica_id, :attempt, :seconds, hostler_now() + make_interval(secs => :seconds)"
    f" WHERE {_IN_USE} ON CONFLICT (replica_id) DO UPDATE"
    " SET attempt = excluded.attempt, seconds = excluded.seconds, until = excluded.until RETURNING until"
)
_SHORTEN = text(
    "UPDATE drains SET until = least(until, hostler_now() + make_interval(secs => :seconds))"
    " WHERE replica_id = :replica_id RETURNING until"
)
_END_IF_IDLE = text(
    f"DELETE FROM drains WHERE replica_id = :replica_id AND attempt = :attempt AND NOT {_IN_USE} RETURNING 1"
)
_LOOK_NOW = text("UPDATE replicas SET next_check_at = hostler_now() WHERE id = :replica_id AND released_at IS NULL")
_DUE_AT = text("UPDATE replicas SET next_check_at = :until WHERE id = :replica_id AND released_at IS NULL")
_TASK_AT = text(
    "UPDATE tasks SET not_before = :until WHERE replica_id = :replica_id AND kind = 'stop' AND state = 'queued'"
)


def begin(connection: Connection, replica_id: str, attempt: int, seconds: float) -> bool:
    """Let a replica that is ``stopping`` now finish what is in flight; its task and its look wait for that.

    False, and nothing waits, when ``seconds`` is 0 or no live gateway may be routing to it. Call it with the replica's
    tasks and the replica locked.
    """
    if seconds <= 0:
        return False
    values = {"replica_id": replica_id, "attempt": attempt, "seconds": seconds, "live_s": LIVE_S}
    until = connection.execute(_BEGIN, values).scalar()
    if until is None:
        return False
    _wait_until(connection, replica_id, until)
    return True


def keep(connection: Connection, replica_id: str) -> bool:
    """Another stop came in the middle of a drain: what it wrote waits too. Whether there is one."""
    query = text(
        f"SELECT d.until FROM drains d JOIN replicas r ON r.id = d.replica_id WHERE r.id = :id AND {IS_DRAINING}"
    )
    until = connection.execute(query, {"id": replica_id}).scalar()
    if until is not None:
        _wait_until(connection, replica_id, until)
    return until is not None


def shorten(connection: Connection, replica_id: str, seconds: float) -> None:
    """End it ``seconds`` from now at the latest; with 0 at once."""
    if seconds <= 0:
        end(connection, replica_id)
        return
    until = connection.execute(_SHORTEN, {"replica_id": replica_id, "seconds": seconds}).scalar()
    if until is not None:
        _wait_until(connection, replica_id, until)


def end(connection: Connection, replica_id: str) -> None:
    """Nobody waits any more."""
    connection.execute(text("DELETE FROM drains WHERE replica_id = :replica_id"), {"replica_id": replica_id})
    _wait_until(connection, replica_id, None)


def end_if_idle(connection: Connection, replica_id: str, attempt: int) -> bool:
    """Whether the drain ended: every live gateway has confirmed. With the replica locked, so that of two gateways that
    confirm at once the second one sees the first."""
    values = {"replica_id": replica_id, "attempt": attempt, "live_s": LIVE_S}
    if connection.execute(_END_IF_IDLE, values).first() is None:
        return False
    _wait_until(connection, replica_id, None)
    return True


def read(connection: Connection, replica_id: str) -> Any | None:
    """(until, seconds, gateways that have not confirmed) of a drain that goes on, or None."""
    query = text(
        "SELECT d.until, d.seconds, (SELECT coalesce(array_agg(g.gateway ORDER BY g.gateway), '{}')"
        " FROM gateway_servers g WHERE g.replica_id = r.id AND g.attempt = r.attempt AND g.idle_at IS NULL) AS gateways"
        f" FROM drains d JOIN replicas r ON r.id = d.replica_id WHERE r.id = :id AND {IS_DRAINING}"
    )
    return connection.execute(query, {"id": replica_id}).first()


def _wait_until(connection: Connection, replica_id: str, until: Any | None) -> None:
    connection.execute(_TASK_AT, {"replica_id": replica_id, "until": until})
    if until is None:
        connection.execute(_LOOK_NOW, {"replica_id": replica_id})
    else:
        connection.execute(_DUE_AT, {"replica_id": replica_id, "until": until})
