"""Attempts that a host still holds something of: what the database says of them, and taking back what it forgot."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas
from app.db.repos.newer import knows_services
from app.db.repos.replicas import Move
from app.domain.lifecycle import State
from app.settings import pools_served
from app.usecases.context import Context
from app.usecases.events import record_event
from app.usecases.launches import DEFAULT_START_S
from app.usecases.rounds import served

#: Columns of a replica without which it could not be restarted or stopped as its user asked.
_KEPT = (
    "owner",
    "pool",
    "backend",
    "engine",
    "server_mode",
    "model_name",
    "spec",
    "labels",
    "priority",
    "grace_s",
)


class NotAdoptable(Exception):
    """It cannot be taken back; the message says why."""


def open_and_known(ctx: Context, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Of ``names``: those whose attempt is open (it may run), and those that have a record at all."""
    query = text("SELECT name, released_at IS NULL AS is_open FROM attempts WHERE name = ANY(:names)")
    with ctx.database.read() as connection:
        rows = list(connection.execute(query, {"names": list(names)}))
    return {row.name for row in rows if row.is_open}, {row.name for row in rows}


def left_behind(ctx: Context) -> list[Any]:
    """Attempts that were given up without having been seen gone and that this host may ask about: ``id, name,
    backend, backend_ref, options``."""
    values = {"node": ctx.settings.node_name, "pools": pools_served(ctx.settings)}
    with ctx.database.read() as connection:
        return list(connection.execute(_LEFT_BEHIND, values)) if knows_services(connection) else []


def record_caught_up(ctx: Context, attempt_id: int) -> None:
    """What was given up was seen gone."""
    with ctx.database.begin() as connection:
        connection.execute(_CAUGHT_UP, {"id": attempt_id, "node": ctx.settings.node_name})
    ctx.notify("events")


_LEFT_BEHIND = text(
    f"""
SELECT a.id, a.name, a.backend, a.backend_ref, r.spec->'resolved'->'backend_options' AS options
FROM attempts a JOIN replicas r ON r.id = a.replica_id
WHERE a.left_behind_at IS NOT NULL AND (a.node = :node OR (a.node IS NULL AND {served("a.pool")}))
ORDER BY a.id LIMIT 100
"""
)
_CAUGHT_UP = text(
    """
WITH seen AS (
    UPDATE attempts SET left_behind_at = NULL WHERE id = :id AND left_behind_at IS NOT NULL
    RETURNING replica_id, number, pool, name
)
INSERT INTO events (kind, replica_id, attempt, pool, node, actor, cause, message)
SELECT 'orphan', replica_id, number, pool, :node, 'hostler', 'sweep',
    name || ': had been given up, and nothing of it is left now' FROM seen
"""
)


def record_orphan(ctx: Context, name: str, what: str) -> None:
    """Something ran under the name of an attempt that has ended or was never known; say what was done."""
    record_event(
        ctx,
        "orphan",
        {"attempt": name},
        message=f"{name}: {what}",
        cause="sweep",
        node=ctx.settings.node_name,
    )


def report(ctx: Context, names: Sequence[str]) -> list[str]:
    """What runs on this host without a record, for `/health`, `node get` and `doctor`. Returns those that are new."""
    query = text("SELECT attributes->'orphans' FROM nodes WHERE name = :node")
    change = text(
        "UPDATE nodes SET attributes = CASE WHEN CAST(:names AS jsonb) = '[]' THEN attributes - 'orphans'"
        " ELSE attributes || jsonb_build_object('orphans', CAST(:names AS jsonb)) END WHERE name = :node"
    )
    node = ctx.settings.node_name
    with ctx.database.read() as connection:
        before = connection.execute(query, {"node": node}).scalar() or []
        if sorted(names) != before:
            connection.execute(change, {"node": node, "names": json.dumps(sorted(names))})
    return sorted(set(names) - set(before))


def record_of(row: Any, attempt: int, host: str | None, port: int | None, gpus: Sequence[int]) -> dict[str, Any]:
    """What is kept beside an attempt, so that a database that lost its replica can be told again."""
    kept = {column: getattr(row, column) for column in _KEPT}
    sealed = base64.b64encode(bytes(row.environment)).decode() if row.environment is not None else None
    return {
        **kept,
        "replica_id": row.id,
        "attempt": attempt,
        "host": host,
        "port": port,
        "gpus": list(gpus),
        "environment": sealed,
    }


def adopt(ctx: Context, name: str, record: Mapping[str, Any], handle: Mapping[str, Any]) -> str:
    """Write the replica, its attempt and its leases anew, as of a launch that is under way; returns the replica's id.

    The agent looks at it next and finds what it is. Raises NotAdoptable when what it holds is somebody else's by now.
    """

    def act(connection: Connection) -> str:
        return _adopt(ctx, connection, name, record, handle)

    replica_id = ctx.database.change(act)
    ctx.notify("events", f"replica:{replica_id}", f"due:{ctx.settings.node_name}", "due:")
    return replica_id


def _adopt(
    ctx: Context, connection: Connection, name: str, record: Mapping[str, Any], handle: Mapping[str, Any]
) -> str:
    replica_id, attempt = str(record["replica_id"]), int(record["attempt"])
    _insert_replica(connection, record)
    pool = connection.execute(_POOL, {"pool": record["pool"]}).one()
    node = ctx.settings.node_name if pool.host_bound else None
    values = {
        "replica_id": replica_id,
        "number": attempt,
        "name": name,
        "pool": record["pool"],
        "backend": record["backend"],
        "node": node,
        # as it was launched, which this host's address may not be any more
        "host": record.get("host") or ("127.0.0.1" if node else None),
        "port": record["port"],
        "handle": json.dumps(dict(handle)),
    }
    attempt_id = connection.execute(_INSERT_ATTEMPT, values).scalar_one()
    if not leases.take(connection, "slot", record["pool"], 1, attempt_id, name):
        raise NotAdoptable(f"pool {record['pool']} has no free slot")
    for kind, scope, numbers in _units(record, node, pool):
        if not leases.take_exactly(connection, kind, scope, numbers, attempt_id, name):
            raise NotAdoptable(f"{kind} {', '.join(map(str, numbers))} of {scope} is leased to another or not ours")
    path: tuple[State, ...] = (State.PENDING, State.SCHEDULING)
    if node:
        path += (State.PREPARING, State.STARTING)
    host = {"node": node, "host": values["host"], "port": record["port"]}
    move = Move(
        replica_id,
        attempt,
        path,
        cause="adopted",
        message="it ran without a record and was adopted",
        next_check_s=0,
        # what its cluster may have in its queue waits there as long as it takes
        deadline_s=DEFAULT_START_S if node else None,
        patch={**host, "grace_s": record["grace_s"]},
    )
    replicas.record_moves(connection, [move])
    return replica_id


def _units(record: Mapping[str, Any], node: str | None, pool: Any) -> list[tuple[str, str, list[int]]]:
    """(kind, scope, numbers) of what it holds beside its slot."""
    if node:
        return [("port", node, [record["port"]] if record["port"] else []), ("gpu", node, list(record["gpus"]))]
    return [("pool_gpu", record["pool"], list(record["gpus"]))] if pool.gpus is not None else []


_POOL = text("SELECT p.gpus, b.host_bound FROM pools p JOIN backends b ON b.name = p.backend WHERE p.name = :pool")


def _insert_replica(connection: Connection, record: Mapping[str, Any]) -> None:
    sealed = record.get("environment")
    values = {
        **{column: record[column] for column in _KEPT if column not in ("spec", "labels", "grace_s")},
        "id": record["replica_id"],
        "attempt": record["attempt"],
        "spec": json.dumps(record["spec"]),
        "labels": json.dumps(record["labels"]),
        "environment": base64.b64decode(sealed) if sealed else None,
    }
    made = connection.execute(_INSERT_REPLICA, values).scalar()
    if made is None:
        raise NotAdoptable("its replica has another record, or its pool or every key that could own it is gone")


_INSERT_REPLICA = text(
    """
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, spec, environment, labels, priority,
                      attempt, timestamps)
SELECT :id, k.id, p.name, p.backend, :engine, :server_mode, :model_name, CAST(:spec AS jsonb), :environment,
       CAST(:labels AS jsonb), :priority, :attempt, jsonb_build_object('pending', hostler_now())
FROM pools p, LATERAL (
    -- its owner, or an admin when that key is forgotten too
    SELECT id FROM keys WHERE id = :owner OR (role = 'admin' AND revoked_at IS NULL)
    ORDER BY id = :owner DESC, created_at LIMIT 1
) k
WHERE p.name = :pool AND p.backend = :backend
ON CONFLICT DO NOTHING RETURNING id
"""
)
_INSERT_ATTEMPT = text(
    """
INSERT INTO attempts (replica_id, number, name, pool, backend, node, host, port, backend_ref, launching_at)
VALUES (:replica_id, :number, :name, :pool, :backend, :node, :host, :port, CAST(:handle AS jsonb), hostler_now())
RETURNING id
"""
)
