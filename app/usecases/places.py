"""Where backends may have left something: places that pools name, and those that are in use still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from app.settings import pools_served
from app.usecases.context import Context
from app.usecases.rounds import served

_NAMED = text(
    f"""
SELECT backend, options FROM pools WHERE backend = ANY(:backends) AND {served("name")}
UNION
SELECT r.backend, r.spec->'resolved'->'backend_options' FROM attempts a
JOIN replicas r ON r.id = a.replica_id AND r.attempt = a.number
WHERE a.released_at IS NULL AND r.backend = ANY(:backends) AND (a.node IS NULL OR a.node = :node)
  AND {served("r.pool")}
"""
)


_POOLS = text(f"SELECT name, backend, options, state, updated_at FROM pools WHERE {served('name')} ORDER BY name")


def pools(ctx: Context) -> list[Any]:
    """(name, backend, options, state, updated_at) of every pool that this host serves."""
    with ctx.database.read() as connection:
        return list(connection.execute(_POOLS, {"pools": pools_served(ctx.settings)}))


def named(ctx: Context, backends: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """(backend, options) of pools that this host serves, and of open attempts in them or on this host."""
    values = {
        "backends": list(backends), "pools": pools_served(ctx.settings), "node": ctx.settings.node_name
    }  # fmt: skip
    with ctx.database.read() as connection:
        return [(row.backend, row.options or {}) for row in connection.execute(_NAMED, values)]
