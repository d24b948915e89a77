"""Tasks of services: they run from the start, are held by nobody, and end when what they are for is so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

_INSERT = text(
    "INSERT INTO tasks (id, kind, state, phase, priority, pool, attempt, owner, request_id, arguments, started_at)"
    " VALUES (:id, :kind, 'running', :phase, 0, :pool, 1, :owner, :request_id, CAST(:arguments AS jsonb),"
    " hostler_now())"
)
_OPEN = text(
    "SELECT id, kind, phase, arguments FROM tasks WHERE arguments->>'service_id' = ANY(:ids) AND replica_id IS NULL"
    " AND state IN ('queued', 'running') ORDER BY seq"
)


def service_of(connection: Connection, task_id: str) -> str | None:
    """The service that a task is of; None for a replica's, or none."""
    query = text("SELECT arguments->>'service_id' FROM tasks WHERE id = :id AND replica_id IS NULL")
    return connection.execute(query, {"id": task_id}).scalar()


def last(connection: Connection, service_id: str, kind: str) -> str | None:
    """The newest task of that kind, ended or not."""
    query = text(
        "SELECT id FROM tasks WHERE arguments->>'service_id' = :id AND replica_id IS NULL AND kind = :kind"
        " ORDER BY seq DESC LIMIT 1"
    )
    return connection.execute(query, {"id": service_id, "kind": kind}).scalar()


def insert(
    connection: Connection,
    *,
    task_id: str,
    kind: str,
    phase: str,
    pool: str,
    owner: str,
    request_id: str,
    arguments: Mapping[str, Any],
) -> None:
    """Add a service's task: it runs from the start, held by nobody; ``arguments`` has its ``service_id``."""
    values = {
        "id": task_id, "kind": kind, "phase": phase, "pool": pool, "owner": owner, "request_id": request_id,
        "arguments": json.dumps(arguments),
    }  # fmt: skip
    connection.execute(_INSERT, values)


def open_of(connection: Connection, service_ids: Sequence[str]) -> list[Any]:
    """(id, kind, phase, arguments) of the services' open tasks, oldest first. With the services' rows locked."""
    return list(connection.execute(_OPEN, {"ids": list(service_ids)}))


def note_progress(connection: Connection, task_id: str, phase: str, done: int, of: int) -> None:
    """How far the task is, shown as its progress."""
    query = text(
        "UPDATE tasks SET phase = :phase, version = version + 1,"
        " arguments = arguments || jsonb_build_object('done', CAST(:done AS int), 'of', CAST(:of AS int))"
        " WHERE id = :id AND state = 'running'"
    )
    connection.execute(query, {"id": task_id, "phase": phase, "done": done, "of": of})
