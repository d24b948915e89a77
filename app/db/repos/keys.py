"""API keys, found by the hash of the whole key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import AdaptedToServices, knows_services

#: What is told of a key. Not a column by name, for a database that was not migrated lacks the last one.
_VISIBLE = """id, name, prefix, role, models, limits,
    coalesce(to_jsonb(keys)->'backend_options', '{}') AS backend_options,
    created_at, expires_at, revoked_at, last_used_at, created_by"""
_LIVE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > hostler_now())"
#: How exact ``last_used_at`` is: a write per request would cost more than the check.
_USED_EVERY = "interval '1 minute'"

_FIND = text(
    f"SELECT id, name, role, models, coalesce(last_used_at < hostler_now() - {_USED_EVERY}, true) AS stale,"
    " CAST(EXTRACT(EPOCH FROM expires_at - hostler_now()) AS double precision) AS ends_in_s"
    f" FROM keys WHERE hash = :hash AND {_LIVE}"
)


_INSERT = AdaptedToServices(
    lambda known: (
        "INSERT INTO keys (id, name, hash, prefix, role, models, limits, expires_at, created_by"
        + (", backend_options)" if known else ")")
        + " VALUES (:id, :name, :hash, :prefix, :role, :models, CAST(:limits AS jsonb), :expires_at, :created_by"
        + (", CAST(:backend_options AS jsonb))" if known else ")")
        + " ON CONFLICT DO NOTHING RETURNING id"
    )
)


def find_live(connection: Connection, key_hash: str) -> Any | None:
    """(id, name, role, models, stale, ends_in_s) of a key that is neither revoked nor expired, or None."""
    return connection.execute(_FIND, {"hash": key_hash}).first()


def stamp_used(connection: Connection, key_id: str) -> None:
    """Note that the key was used just now."""
    connection.execute(text("UPDATE keys SET last_used_at = hostler_now() WHERE id = :id"), {"id": key_id})


def insert(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Add a key; False when a live key has that name (or the very same key exists)."""
    written = {name: json.dumps(values.get(name) or {}) for name in ("limits", "backend_options")}
    return connection.execute(_INSERT.of(connection), {**values, **written}).first() is not None


def backend_options(connection: Connection, key_id: str) -> Mapping[str, Any] | None:
    """Options per backend that launches of this key carry; they never change. None: nothing is known of such yet."""
    if not knows_services(connection):
        return None
    query = text("SELECT backend_options FROM keys WHERE id = :id")
    return connection.execute(query, {"id": key_id}).scalar() or {}


def is_live_name(connection: Connection, name: str) -> bool:
    query = text("SELECT 1 FROM keys WHERE name = :name AND revoked_at IS NULL")
    return connection.execute(query, {"name": name}).first() is not None


def read(connection: Connection, key_id: str) -> Any | None:
    """The key without its hash, or None."""
    return connection.execute(text(f"SELECT {_VISIBLE} FROM keys WHERE id = :id"), {"id": key_id}).first()


def page(
    connection: Connection, *, role: str | None, revoked: bool, after: Sequence[Any] | None, limit: int
) -> list[Any]:
    """Up to ``limit`` keys, oldest first, behind ``after`` (created_at, id)."""
    conditions = ["(CAST(:role AS text) IS NULL OR role = :role)", "(:revoked OR revoked_at IS NULL)"]
    values: dict[str, Any] = {"role": role, "revoked": revoked, "limit": limit}
    if after is not None:
        conditions.append("(created_at, id) > (CAST(:created_at AS timestamptz), :id)")
        values |= {"created_at": after[0], "id": after[1]}
    query = text(f"SELECT {_VISIBLE} FROM keys WHERE {' AND '.join(conditions)} ORDER BY created_at, id LIMIT :limit")
    return list(connection.execute(query, values))


def count(connection: Connection, *, role: str | None, revoked: bool) -> int:
    query = text(
        "SELECT count(*) FROM keys WHERE (CAST(:role AS text) IS NULL OR role = :role)"
        " AND (:revoked OR revoked_at IS NULL)"
    )
    return int(connection.execute(query, {"role": role, "revoked": revoked}).scalar_one())


def lock_admins(connection: Connection) -> set[str]:
    """Ids of the live admin keys that never expire, locked: two revokes at once must not take the last two."""
    query = text(
        "SELECT id FROM keys WHERE role = 'admin' AND revoked_at IS NULL AND expires_at IS NULL ORDER BY id FOR UPDATE"
    )
    return {row.id for row in connection.execute(query)}


def revoke(connection: Connection, key_id: str) -> bool:
    """End a key; False when it is unknown or was ended before. The row stays: replicas name it as their owner."""
    query = text("UPDATE keys SET revoked_at = hostler_now() WHERE id = :id AND revoked_at IS NULL RETURNING id")
    return connection.execute(query, {"id": key_id}).first() is not None


def revoke_own(connection: Connection, but: str, role: str = "admin") -> list[Any]:
    """End the stack's own keys of a role (no other key made them) but the one of hash ``but``: (id, name) of each."""
    query = text(
        "UPDATE keys SET revoked_at = hostler_now() WHERE role = :role AND created_by IS NULL"
        " AND revoked_at IS NULL AND hash <> :but RETURNING id, name"
    )
    return list(connection.execute(query, {"but": but, "role": role}))
