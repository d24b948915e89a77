"""Services: the row of each, and when it is looked at.

Who changes anything of a service holds its row (``FOR NO KEY UPDATE``: a replica that refers to it may be written
beside), and takes it before tasks and replicas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos.newer import knows_services

_FILTERS = {
    "name": "s.name = :name",
    "recipe": "(s.recipe = :recipe OR split_part(s.recipe, '/', 2) = :recipe)",
    "pool": "s.pool = :pool",
    "owner": "s.owner = :owner",
    "label": "s.labels @> CAST(:label AS jsonb)",
    "desired_state": "s.desired_state = :desired_state",
    "engines": "EXISTS (SELECT 1 FROM service_revisions AS r WHERE r.service_id = s.id AND r.number = s.revision"
    " AND r.spec->'replica'->'run'->>'engine' = ANY(:engines))",
}
_COLUMNS = "s.*, hostler_now() AS now"
_INSERT = text(
    """
INSERT INTO services (id, name, owner, recipe, pool, labels, count, look_at)
VALUES (:id, :name, :owner, :recipe, :pool, CAST(:labels AS jsonb), :count, hostler_now())
ON CONFLICT (name) WHERE desired_state = 'running' DO NOTHING RETURNING *, hostler_now() AS now
"""
)
#: Columns of a service that a change may set, with what casts their value.
_CHANGEABLE = {
    "count": ":count",
    "revision": ":revision",
    "good_revision": ":good_revision",
    "desired_state": ":desired_state",
    "paused": ":paused",
    "labels": "CAST(:labels AS jsonb)",
    "pool": ":pool",
    "recipe": ":recipe",
    "rollout": "CAST(:rollout AS jsonb)",
    "reason": ":reason",
    "message": "left(:message, 4000)",
    "reset_at": "CASE WHEN :reset_at THEN hostler_now() ELSE reset_at END",
    "ended_at": "CASE WHEN :ended_at THEN hostler_now() END",
}


def is_there(connection: Connection) -> bool:
    """Whether the database was migrated to a version that has services."""
    return knows_services(connection)


def lock(connection: Connection, service_id: str) -> Any | None:
    """The service's row with ``now``, locked until the transaction ends; None when there is none."""
    query = text(f"SELECT {_COLUMNS} FROM services s WHERE s.id = :id FOR NO KEY UPDATE")
    return connection.execute(query, {"id": service_id}).first()


def lock_free(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """Rows of those that nobody else is at, locked."""
    query = text(
        f"SELECT {_COLUMNS} FROM services s WHERE s.id = ANY(:ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED"
    )
    return list(connection.execute(query, {"ids": list(service_ids)}))


def read(connection: Connection, service_id: str) -> Any | None:
    """The service's row with ``now``, or None."""
    return connection.execute(text(f"SELECT {_COLUMNS} FROM services s WHERE s.id = :id"), {"id": service_id}).first()


def find_id(connection: Connection, ref: str) -> str | None:
    """The id behind an id or a name: that of the running service, else of the last one that was called so."""
    query = text(
        "SELECT id FROM services WHERE id = :ref UNION ALL"
        " (SELECT id FROM services WHERE name = :ref ORDER BY desired_state = 'running' DESC, created_at DESC LIMIT 1)"
        " LIMIT 1"
    )
    return connection.execute(query, {"ref": ref}).scalar()


def of_job(connection: Connection, job_id: str, most: int) -> list[Any]:
    """(id, runs) of the services for whose replicas a cluster has, or had, a job of that name: those for which it runs
    first, then the last ones."""
    query = text(
        "SELECT m.service_id AS id, bool_or(a.released_at IS NULL) AS runs FROM attempts a"
        " JOIN service_members m ON m.replica_id = a.replica_id WHERE a.job_id = :job_id"
        " GROUP BY m.service_id ORDER BY bool_or(a.released_at IS NULL) DESC, max(a.id) DESC LIMIT :most"
    )
    return list(connection.execute(query, {"job_id": job_id, "most": most}))


def insert(
    connection: Connection,
    *,
    service_id: str,
    name: str,
    owner: str,
    recipe: str,
    pool: str,
    labels: Mapping[str, str],
    count: int,
) -> Any | None:
    """Add a service; returns its row, which nobody else can lock before the commit. None when a running one has that
    name."""
    values = {
        "id": service_id, "name": name, "owner": owner, "recipe": recipe, "pool": pool, "labels": json.dumps(labels),
        "count": count,
    }  # fmt: skip
    return connection.execute(_INSERT, values).first()


def page(connection: Connection, filters: Mapping[str, Any], limit: int, behind: Sequence[Any] | None) -> list[Any]:
    """``limit`` services older than ``behind`` (created_at, id), newest first."""
    where, values = _where(filters)
    if behind is not None:
        where += " AND (s.created_at, s.id) < (:created_at, :behind_id)"
        values |= {"created_at": behind[0], "behind_id": behind[1]}
    query = text(f"SELECT {_COLUMNS} FROM services s WHERE {where} ORDER BY s.created_at DESC, s.id DESC LIMIT :limit")
    return list(connection.execute(query, {**values, "limit": limit}))


def total(connection: Connection, filters: Mapping[str, Any]) -> int:
    """How many match."""
    where, values = _where(filters)
    return int(connection.execute(text(f"SELECT count(*) FROM services s WHERE {where}"), values).scalar_one())


def change(connection: Connection, service_id: str, **columns: Any) -> None:
    """Set columns of ``_CHANGEABLE``; what a user sees of the service changed."""
    values = {name: json.dumps(value) if name in ("labels", "rollout") else value for name, value in columns.items()}
    sets = ", ".join(f"{name} = {_CHANGEABLE[name]}" for name in columns)
    query = text(
        f"UPDATE services SET {sets}, updated_at = hostler_now(), version = version + 1 WHERE id = :service_id"
    )
    connection.execute(query, {**values, "service_id": service_id})


def look_again(connection: Connection, waits: Mapping[str, float | None]) -> None:
    """When each is looked at next, in seconds from now; None: never by the clock."""
    query = text(
        "UPDATE services s SET look_at = hostler_now() + make_interval(secs => w.seconds)"
        " FROM unnest(CAST(:ids AS text[]), CAST(:seconds AS float8[])) AS w(id, seconds) WHERE s.id = w.id"
    )
    connection.execute(query, {"ids": list(waits), "seconds": list(waits.values())})


def lock_pool(connection: Connection, name: str) -> bool:
    """Whether there is such a pool; it is not deleted before the transaction ends."""
    return (
        connection.execute(text("SELECT 1 FROM pools WHERE name = :name FOR KEY SHARE"), {"name": name}).first()
        is not None
    )


def _where(filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    used = {name: value for name, value in filters.items() if name in _FILTERS and value not in (None, [], "")}
    conditions = [_FILTERS[name] for name in used]
    if "label" in used:
        pairs = [used["label"]] if isinstance(used["label"], str) else used["label"]
        used["label"] = json.dumps({name: value for name, _, value in (pair.partition("=") for pair in pairs)})
    return " AND ".join(conditions) or "true", used
