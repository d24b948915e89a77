"""Revisions of services: what was wanted of one, each kept as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, text

_INSERT = text(
    "INSERT INTO service_revisions (service_id, number, spec, environment, actor, cause)"
    " VALUES (:service_id, :number, CAST(:spec AS jsonb), :environment, :actor, :cause)"
)


def insert(
    connection: Connection,
    service_id: str,
    number: int,
    spec: Mapping[str, Any],
    environment: bytes | None,
    *,
    actor: str,
    cause: str,
) -> None:
    """Add a revision, for ever."""
    values = {
        "service_id": service_id, "number": number, "spec": json.dumps(spec), "environment": environment,
        "actor": actor, "cause": cause,
    }  # fmt: skip
    connection.execute(_INSERT, values)


def read(connection: Connection, service_id: str, number: int) -> Any | None:
    """One revision's row, or None."""
    query = text("SELECT * FROM service_revisions WHERE service_id = :id AND number = :number")
    return connection.execute(query, {"id": service_id, "number": number}).first()


def get(connection: Connection, service_id: str, number: int) -> Any:
    """The same of one that members or the service's row refer to: it is kept. Raises LookupError when it is not."""
    found = read(connection, service_id, number)
    if found is None:
        raise LookupError(f"revision {number} of service {service_id} is gone")
    return found


def read_all(connection: Connection, service_id: str, limit: int = 1000) -> list[Any]:
    """Its revisions, newest first."""
    query = text("SELECT * FROM service_revisions WHERE service_id = :id ORDER BY number DESC LIMIT :limit")
    return list(connection.execute(query, {"id": service_id, "limit": limit}))


def specs(connection: Connection, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Specs by (service, number), in one read."""
    pairs = sorted(set(wanted))
    query = text(
        "SELECT r.service_id, r.number, r.spec"
        " FROM unnest(CAST(:ids AS text[]), CAST(:numbers AS integer[])) AS w(id, number)"
        " JOIN service_revisions r ON r.service_id = w.id AND r.number = w.number"
    )
    values = {"ids": [one for one, _ in pairs], "numbers": [number for _, number in pairs]}
    return {(row.service_id, row.number): row.spec for row in connection.execute(query, values)}


def last_number(connection: Connection, service_id: str) -> int:
    """The number of its newest revision."""
    query = text("SELECT max(number) FROM service_revisions WHERE service_id = :id")
    return int(connection.execute(query, {"id": service_id}).scalar() or 0)
