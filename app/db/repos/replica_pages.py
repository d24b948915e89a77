"""Pages of replicas and tasks: keyset, newest first, each filter served by an index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.errors import UndefinedTable
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

#: Filter of the API -> condition.
REPLICA_FILTERS = {
    "server_mode": "server_mode = :server_mode",
    "status": "state = :status",
    "model_name": "model_name = :model_name",
    "pool": "pool = :pool",
    "owner": "owner = :owner",
    "label": "labels @> CAST(:label AS jsonb)",
    "service_id": "labels @> jsonb_build_object('service_id', CAST(:service_id AS text))",
}
TASK_FILTERS = {
    "kind": "kind = :kind",
    "state": "state = :state",
    "replica_id": "replica_id = :replica_id",
    "service_id": "arguments->>'service_id' = :service_id AND replica_id IS NULL",
    "pool": "pool = :pool",
}
#: Any constant; every folder takes the same.
_FOLD_LOCK = 0x666F6C64
#: Filters that the kept counts know: API name -> column.
_COUNTED = {
    "server_mode": "server_mode",
    "status": "state",
    "model_name": "model_name",
    "pool": "pool",
    "owner": "owner",
}


def replica_page(
    connection: Connection, filters: Mapping[str, Any], limit: int, behind: Sequence[Any] | None
) -> list[Any]:
    """``limit`` replicas older than ``behind`` (created_at, id)."""
    where, values = _where(REPLICA_FILTERS, filters)
    if behind is not None:
        where += " AND (created_at, id) < (:created_at, :id)"
        values |= {"created_at": behind[0], "id": behind[1]}
    query = text(f"SELECT * FROM replicas WHERE {where} ORDER BY created_at DESC, id DESC LIMIT :limit")
    return list(connection.execute(query, {**values, "limit": limit}))


def task_page(
    connection: Connection, columns: str, filters: Mapping[str, Any], limit: int, behind: Sequence[Any] | None
) -> list[Any]:
    """``limit`` tasks older than ``behind`` (seq)."""
    where, values = _where(TASK_FILTERS, filters)
    if behind is not None:
        where += " AND seq < :seq"
        values["seq"] = behind[0]
    query = text(f"SELECT {columns} FROM tasks WHERE {where} ORDER BY seq DESC LIMIT :limit")
    return list(connection.execute(query, {**values, "limit": limit}))


def total(connection: Connection, table: str, filters: Mapping[str, Any]) -> int:
    """How many match, exactly; ``table`` is ``replicas`` or ``tasks``. For a connection without a transaction.

    Replicas are summed from the kept counts, and of one label the rows of ``replica_labels`` are counted, so that a
    page costs the same among a thousand and among a hundred thousand. Other filters count what they match.
    """
    known = REPLICA_FILTERS if table == "replicas" else TASK_FILTERS
    where, values = _where(known, filters)
    if table == "replicas" and set(values) <= set(_COUNTED):
        conditions = " AND ".join(f"{_COUNTED[name]} = :{name}" for name in values) or "true"
        query = text(f"SELECT coalesce(sum(change), 0) FROM replica_counts WHERE {conditions}")
        return int(connection.execute(query, values).scalar_one())
    if table == "replicas" and set(values) == {"label"}:
        found = _total_of_label(connection, _labels(filters["label"]))
        if found is not None:
            return found
    return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {where}"), values).scalar_one())


def fold_counts(connection: Connection) -> int:
    """Fold the changes into one row per kind; returns how many rows that saved. One folder at a time."""
    query = text(
        "WITH taken AS (DELETE FROM replica_counts WHERE pg_try_advisory_xact_lock(:lock) RETURNING *),"
        " kept AS (INSERT INTO replica_counts (state, server_mode, model_name, pool, owner, change)"
        "  SELECT state, server_mode, model_name, pool, owner, sum(change) FROM taken GROUP BY 1, 2, 3, 4, 5"
        "  HAVING sum(change) <> 0 RETURNING 1)"
        " SELECT (SELECT count(*) FROM taken) - (SELECT count(*) FROM kept)"
    )
    return int(connection.execute(query, {"lock": _FOLD_LOCK}).scalar_one())


def _total_of_label(connection: Connection, labels: Mapping[str, str]) -> int | None:
    """How many carry the label; None for several labels, and on a schema that has no rows of them (0.1.0)."""
    if len(labels) > 1:
        return None
    [(name, value)] = labels.items()
    query = text("SELECT count(*) FROM replica_labels WHERE name = :name AND value = :value")
    try:
        return int(connection.execute(query, {"name": name, "value": value}).scalar_one())
    except ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable):
            return None
        raise


def _where(known: Mapping[str, str], filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    used = {name: value for name, value in filters.items() if name in known and value not in (None, [], "")}
    conditions = [known[name] for name in used]
    if "label" in used:
        used["label"] = json.dumps(_labels(used["label"]))
    return " AND ".join(conditions) or "true", used


def _labels(wanted: Sequence[str] | str) -> dict[str, str]:
    pairs = [wanted] if isinstance(wanted, str) else wanted
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
