"""Events: written with what they tell of, read in an order that late commits cannot upset.

A serial id alone loses events: a transaction that took a small id may commit after a reader has passed it. So streams
go by ``(xid, id)`` and read only below the oldest transaction that still runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

#: Where a stream is: (transaction, id) of the last event seen.
Cursor = tuple[int, int]

_COLUMNS = (
    "id, xid::text::bigint AS xid, at, kind, replica_id, attempt, task_id, pool, node, actor, cause, from_state,"
    " to_state, reason, message, request_id, data"
)
_SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())"
# a bare `xid` would be the number that is selected, which no index has: every event would be sorted
_NEWEST_FIRST = "ORDER BY events.xid DESC, events.id DESC"

_INSERT = text(
    "INSERT INTO events (kind, replica_id, attempt, task_id, pool, node, actor, cause, reason, message, request_id,"
    " data) VALUES (:kind, :replica_id, :attempt, :task_id, :pool, :node, :actor, :cause, :reason, :message,"
    " :request_id, CAST(:data AS jsonb))"
)

_BEHIND = f"SELECT {_COLUMNS} FROM events WHERE (xid, id) > (CAST(:xid AS text)::xid8, :id) AND {_SETTLED}"

#: What a list may be filtered by: columns of the same name.
FILTERS = ("kind", "replica_id", "task_id", "service_id", "pool", "node", "actor", "to_state")
#: Where it is not a column: what an event tells of a service is in its data.
_WHERE = {"service_id": "data->>'service_id' = :service_id AND data ? 'service_id'"}


def insert(
    connection: Connection,
    *,
    kind: str,
    actor: str,
    cause: str,
    message: str = "",
    replica_id: str | None = None,
    attempt: int | None = None,
    task_id: str | None = None,
    pool: str | None = None,
    node: str | None = None,
    reason: str | None = None,
    request_id: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add an event that is no transition (those are written with their step)."""
    values = {
        "kind": kind,
        "actor": actor,
        "cause": cause,
        "message": message[:4000],
        "replica_id": replica_id,
        "attempt": attempt,
        "task_id": task_id,
        "pool": pool,
        "node": node,
        "reason": reason,
        "request_id": request_id,
        "data": json.dumps(data) if data is not None else None,
    }
    connection.execute(_INSERT, values)


def behind(connection: Connection, cursor: Cursor, filters: Mapping[str, str], limit: int) -> list[Any]:
    """Settled events behind ``cursor``, oldest first."""
    conditions, values = _where(filters)
    query = text(f"{_BEHIND}{conditions} ORDER BY events.xid, events.id LIMIT :limit")
    return list(connection.execute(query, {**values, "xid": str(cursor[0]), "id": cursor[1], "limit": limit}))


def newest_first(connection: Connection, before: Cursor | None, filters: Mapping[str, str], limit: int) -> list[Any]:
    """Events before ``before`` (None: from the newest), committed ones that may yet be overtaken included."""
    conditions, values = _where(filters)
    if before is not None:
        conditions += " AND (xid, id) < (CAST(:xid AS text)::xid8, :id)"
        values |= {"xid": str(before[0]), "id": before[1]}
    query = text(f"SELECT {_COLUMNS} FROM events WHERE true{conditions} {_NEWEST_FIRST} LIMIT :limit")
    return list(connection.execute(query, {**values, "limit": limit}))


def of_replica(connection: Connection, replica_id: str, after_id: int, limit: int) -> list[Any]:
    """A replica's own events in the order they happened: its row lock makes their ids ascend."""
    query = text(
        f"SELECT {_COLUMNS} FROM events WHERE replica_id = :replica_id AND id > :after_id ORDER BY id LIMIT :limit"
    )
    return list(connection.execute(query, {"replica_id": replica_id, "after_id": after_id, "limit": limit}))


def settled_end(connection: Connection) -> Cursor:
    """The place behind every settled event: where a stream of what is new begins."""
    query = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    return int(connection.execute(query).scalar_one()) - 1, 2**63 - 1


def newest_settled(connection: Connection, limit: int) -> list[Any]:
    """The newest settled events, oldest of them first."""
    query = text(f"SELECT {_COLUMNS} FROM events WHERE {_SETTLED} {_NEWEST_FIRST} LIMIT :limit")
    return list(connection.execute(query, {"limit": limit}))[::-1]


def settled_behind(connection: Connection, cursor: Cursor, limit: int) -> tuple[list[Any], bool]:
    """(settled events behind ``cursor``, oldest first; whether committed ones wait for an older transaction to end).

    One statement: this is what runs all the time.
    """
    query = text(
        f"SELECT {_COLUMNS}, {_SETTLED} AS settled FROM events WHERE (xid, id) > (CAST(:xid AS text)::xid8, :id)"
        " ORDER BY events.xid, events.id LIMIT :limit"
    )
    rows = list(connection.execute(query, {"xid": str(cursor[0]), "id": cursor[1], "limit": limit}))
    settled = [row for row in rows if row.settled]
    return settled, len(settled) < len(rows)


def _where(filters: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    named = [name for name in FILTERS if filters.get(name) is not None]
    conditions = [_WHERE.get(name, f"{name} = :{name}") for name in named]
    return "".join(f" AND {one}" for one in conditions), {name: filters[name] for name in named}
