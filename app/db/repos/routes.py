"""What the route table is made from. All of it is read in one snapshot: a part of it is never taken for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import AdaptedToServices

_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
# what was ready once in this attempt has a base_url; one arm per index
_MEMBERS = text(
    """
SELECT id, attempt, state, base_url FROM replicas
WHERE released_at IS NULL AND base_url IS NOT NULL AND port IS NOT NULL
    AND state IN ('ready', 'unhealthy', 'unreachable')
UNION ALL
SELECT id, attempt, state, base_url FROM replicas
WHERE released_at IS NULL AND base_url IS NOT NULL AND port IS NOT NULL
    AND state = 'stopping'
"""
)
_SERVICE_NAME = "(SELECT name FROM services WHERE services.id = replicas.labels->>'service_id')"
_DETAILS = AdaptedToServices(
    lambda known: (
        "SELECT id, attempt, model_name, pool, node, port, base_url, engine, labels->>'service_id' AS service_id,"
        f" {_SERVICE_NAME if known else 'NULL'} AS service_name,"
        " (spec->'resolved'->'backend_options'->'tunnel') IS NOT DISTINCT FROM CAST('true' AS jsonb) AS tunnelled,"
        " spec->'resolved'->'config' AS config, spec->'gateway_config' AS gateway_config"
        " FROM replicas WHERE id = ANY(:ids)"
    )
)
#: Models of replicas that are not gone, from the totals: walking along a long queue would cost more with each replica.
_MODELS = text(
    "SELECT model_name FROM replica_counts WHERE state NOT IN ('stopped', 'failed')"
    " GROUP BY model_name HAVING sum(change) > 0"
)


def begin_snapshot(connection: Connection) -> None:
    """Every later read of this transaction sees one moment. The first statement of the transaction."""
    connection.execute(_SNAPSHOT)


def members(connection: Connection) -> list[Any]:
    """(id, attempt, state, base_url) of every replica that was ready in its present attempt and may still run."""
    return list(connection.execute(_MEMBERS))


def details(connection: Connection, ids: Sequence[str]) -> list[Any]:
    """What does not change as long as the attempt is the same and runs at the same address."""
    return list(connection.execute(_DETAILS.of(connection), {"ids": list(ids)})) if ids else []


def models_in_use(connection: Connection) -> list[str]:
    """Names of models that have replicas, ready or not."""
    return list(connection.execute(_MODELS).scalars())


def serving(connection: Connection, names: Sequence[str], without: Sequence[str]) -> set[str]:
    """Those of ``names`` that replicas of other engines than ``without`` have."""
    if not names:
        return set()
    # not as an equality: see served.py
    query = text(
        "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE EXISTS (SELECT 1 FROM replicas"
        " WHERE model_name BETWEEN name AND name AND released_at IS NULL AND engine <> ALL(:without))"
    )
    return set(connection.execute(query, {"names": list(names), "without": list(without)}).scalars())


def live_keys(connection: Connection) -> list[Any]:
    """(id, hash, role, models, limits, expires_at) of every key that is neither revoked nor expired."""
    query = text(
        "SELECT id, hash, role, models, limits, expires_at FROM keys"
        " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > hostler_now())"
    )
    return list(connection.execute(query))


def catalogue(connection: Connection) -> list[Any]:
    """(name, aliases) of the catalogue."""
    return list(connection.execute(text("SELECT name, aliases FROM models")))
