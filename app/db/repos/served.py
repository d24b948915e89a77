"""What is served now: the models of replicas that are not gone, and the engines behind them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

#: Kinds of replicas that are looked at for one model: more than a few never differ in what they understand.
_KINDS = 64
_KIND = "model_name, engine, state = 'ready' AS ready, spec->'resolved'->'config' AS config"


def kinds_of(connection: Connection, names: list[str]) -> list[Any]:
    """(model_name, engine, ready, config) of the replicas of ``names``, each kind once, ready ones first."""
    query = text(
        f"SELECT DISTINCT {_KIND} FROM replicas WHERE model_name = ANY(:names) AND released_at IS NULL"
        f" ORDER BY ready DESC LIMIT {_KINDS}"
    )
    return list(connection.execute(query, {"names": names}))


def kinds_of_service(connection: Connection, service_id: str) -> list[Any]:
    """The same for the replicas that carry the label ``service_id``."""
    query = text(
        f"SELECT DISTINCT {_KIND} FROM replicas WHERE labels @> jsonb_build_object('service_id', CAST(:id AS text))"
        f" AND released_at IS NULL ORDER BY ready DESC LIMIT {_KINDS}"
    )
    return list(connection.execute(query, {"id": service_id}))


def kind_of_replica(connection: Connection, replica_id: str) -> Any | None:
    """The same for one replica."""
    query = text(f"SELECT {_KIND} FROM replicas WHERE id = :id AND released_at IS NULL")
    return connection.execute(query, {"id": replica_id}).first()


def counts(connection: Connection) -> list[Any]:
    """(model_name, engine, ready, replicas) of everything that is not gone, by name."""
    query = text(
        "SELECT model_name, engine, count(*) FILTER (WHERE state = 'ready') AS ready, count(*) AS replicas"
        " FROM replicas WHERE released_at IS NULL GROUP BY model_name, engine ORDER BY model_name, engine"
    )
    return list(connection.execute(query))


def ready_names(connection: Connection, limit: int) -> list[str]:
    """Names with a ready replica, at most ``limit``."""
    query = text(
        "SELECT DISTINCT model_name FROM replicas WHERE state = 'ready' AND released_at IS NULL"
        " ORDER BY model_name LIMIT :limit"
    )
    return list(connection.execute(query, {"limit": limit}).scalars())
