"""Pools and the backends that workers have written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.nodes import SILENT_S

# what a host found that is not heard of any more is no news, and not shown
_POOL = f"""
SELECT p.name, p.backend, p.options, p.slots, p.gpus, p.labels, p.defaults, p.state, p.created_at, p.updated_at,
       (SELECT count(*) FROM units u WHERE u.kind = 'slot' AND u.scope = p.name AND u.lease_id IS NOT NULL)
           AS slots_used,
       (SELECT count(*) FROM tasks t WHERE t.pool = p.name AND t.state = 'queued' AND t.kind IN ('create', 'restart'))
           AS queued,
       coalesce((SELECT jsonb_agg(jsonb_build_object('node', n.name) || (n.attributes->'places'->p.name)
                     ORDER BY n.name)
                 FROM nodes n WHERE n.attributes->'places' ? p.name
                 AND n.heartbeat_at > hostler_now() - make_interval(secs => {SILENT_S})
                 AND CAST(n.attributes->'places'->p.name->>'asked_at' AS timestamptz) >= p.updated_at), '[]') AS places
FROM pools p
"""
#: What a change may set.
_CHANGEABLE = {"options": "jsonb", "slots": "integer", "gpus": "integer", "labels": "jsonb", "defaults": "jsonb"}


def page(connection: Connection, *, backend: str | None, state: str | None, after: str | None, limit: int) -> list[Any]:
    """Up to ``limit`` pools by name, behind ``after``."""
    query = text(
        f"{_POOL} WHERE (CAST(:backend AS text) IS NULL OR p.backend = :backend)"
        " AND (CAST(:state AS text) IS NULL OR p.state = :state)"
        " AND (CAST(:after AS text) IS NULL OR p.name > :after) ORDER BY p.name LIMIT :limit"
    )
    return list(connection.execute(query, {"backend": backend, "state": state, "after": after, "limit": limit}))


def count(connection: Connection, *, backend: str | None, state: str | None) -> int:
    query = text(
        "SELECT count(*) FROM pools p WHERE (CAST(:backend AS text) IS NULL OR p.backend = :backend)"
        " AND (CAST(:state AS text) IS NULL OR p.state = :state)"
    )
    return int(connection.execute(query, {"backend": backend, "state": state}).scalar_one())


def names(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT name FROM pools ORDER BY name")).scalars())


def read(connection: Connection, name: str) -> Any | None:
    """The pool with what of it is used and queued, or None."""
    return connection.execute(text(f"{_POOL} WHERE p.name = :name"), {"name": name}).first()


def lock(connection: Connection, name: str) -> Any | None:
    """The pool's row, locked until the transaction ends, or None."""
    return connection.execute(text("SELECT * FROM pools WHERE name = :name FOR UPDATE"), {"name": name}).first()


def insert(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Add a pool; False when the name is taken."""
    query = text(
        "INSERT INTO pools (name, backend, options, slots, gpus, labels, defaults) VALUES (:name, :backend,"
        " CAST(:options AS jsonb), :slots, :gpus, CAST(:labels AS jsonb), CAST(:defaults AS jsonb))"
        " ON CONFLICT DO NOTHING RETURNING name"
    )
    plain = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}
    return connection.execute(query, plain).first() is not None


def update(connection: Connection, name: str, changes: Mapping[str, Any]) -> None:
    """Set the named columns of a locked pool."""
    sets = [f"{column} = CAST(:{column} AS {_CHANGEABLE[column]})" for column in changes]
    plain = {column: json.dumps(value) if isinstance(value, dict) else value for column, value in changes.items()}
    query = text(f"UPDATE pools SET {', '.join([*sets, 'updated_at = hostler_now()'])} WHERE name = :name")
    connection.execute(query, {**plain, "name": name})


def set_state(connection: Connection, name: str, state: str) -> None:
    query = text("UPDATE pools SET state = :state, updated_at = hostler_now() WHERE name = :name")
    connection.execute(query, {"name": name, "state": state})


def replica_counts(connection: Connection, name: str) -> tuple[int, int]:
    """(replicas that still hold or may hold something, all records that name the pool)."""
    query = text("SELECT count(*) FILTER (WHERE released_at IS NULL), count(*) FROM replicas WHERE pool = :name")
    row = connection.execute(query, {"name": name}).one()
    return int(row[0]), int(row[1])


def delete(connection: Connection, name: str) -> None:
    connection.execute(text("DELETE FROM pools WHERE name = :name"), {"name": name})


def backend(connection: Connection, name: str) -> Any | None:
    """(name, summary, options_schema, host_bound, ...) as a worker wrote it down, or None."""
    return connection.execute(text("SELECT * FROM backends WHERE name = :name"), {"name": name}).first()


def backend_names(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT name FROM backends ORDER BY name")).scalars())
