"""What is served now: the models of replicas that are not gone, and the engines behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

#: Replicas that are looked at for one name, the newest: more of them differ no more in what they understand.
_LOOKED_AT = 64
#: As the gateway routes: that a backend is silent proves nothing about its engine (app/domain/routing.py).
_IN = "state IN ('ready', 'unreachable') AND port IS NOT NULL"
_KIND = f"model_name, engine, {_IN} AS ready, spec->'resolved'->'config' AS config"
# in the order of the index, or a name with a long history would be read from its beginning; and not as an equality, for
# which the planner walks along all replicas by age and finds, of a name that is rare, few
_KINDS = """
SELECT DISTINCT found.* FROM unnest(CAST(:names AS text[])) AS name, LATERAL (
    SELECT {kind} FROM replicas WHERE model_name BETWEEN name AND name AND released_at IS NULL
    AND engine <> ALL(:without) {ready}
    ORDER BY model_name DESC, created_at DESC, id DESC LIMIT {looked_at}
) AS found
"""


def kinds_of(connection: Connection, names: list[str], without: Sequence[str]) -> list[Any]:
    """(model_name, engine, ready, config) of the replicas of ``names``, each kind once: the ready ones, else all.

    ``without`` are engines that serve no model, here and below.
    """
    for ready in (f"AND {_IN}", ""):
        query = text(_KINDS.format(kind=_KIND, ready=ready, looked_at=_LOOKED_AT))
        rows = list(connection.execute(query, {"names": names, "without": list(without)}))
        if rows:
            return rows
    return []


def kinds_of_service(connection: Connection, service_id: str) -> list[Any]:
    """The same for all replicas that carry the label ``service_id``, ready ones first."""
    query = text(
        f"SELECT DISTINCT {_KIND} FROM replicas WHERE labels @> jsonb_build_object('service_id', CAST(:id AS text))"
        f" AND released_at IS NULL ORDER BY ready DESC LIMIT {_LOOKED_AT}"
    )
    return list(connection.execute(query, {"id": service_id}))


def kind_of_replica(connection: Connection, replica_id: str) -> Any | None:
    """The same for one replica."""
    query = text(f"SELECT {_KIND} FROM replicas WHERE id = :id AND released_at IS NULL")
    return connection.execute(query, {"id": replica_id}).first()


def counts(connection: Connection, without: Sequence[str]) -> list[Any]:
    """(model_name, engine, ready, replicas) of everything that is not gone, by name."""
    query = text(
        f"SELECT model_name, engine, count(*) FILTER (WHERE {_IN}) AS ready, count(*) AS replicas"
        " FROM replicas WHERE released_at IS NULL AND engine <> ALL(:without)"
        " GROUP BY model_name, engine ORDER BY model_name, engine"
    )
    return list(connection.execute(query, {"without": list(without)}))


def ready_names(connection: Connection, limit: int, without: Sequence[str]) -> list[str]:
    """Names with a ready replica, at most ``limit``."""
    query = text(
        f"SELECT DISTINCT model_name FROM replicas WHERE {_IN} AND released_at IS NULL AND engine <> ALL(:without)"
        " ORDER BY model_name LIMIT :limit"
    )
    return list(connection.execute(query, {"limit": limit, "without": list(without)}).scalars())
