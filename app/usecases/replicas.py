"""Replicas as users see them, and all that they may ask of one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import events, replica_pages, replicas, tunnels
from app.domain.lifecycle import TERMINAL
from app.domain.masking import MASK, mask
from app.errors import Conflict, NotFound
from app.usecases import hidden_options, paging, reach
from app.usecases import idempotency as remembered
from app.usecases.abandons import request_abandon
from app.usecases.checks import request_diagnose, request_health
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.creates import CreateOutcome, plan_create, request_create
from app.usecases.job_ids import MOST, meant
from app.usecases.restarts import request_restart
from app.usecases.stops import request_stop

__all__ = [
    "CreateOutcome",
    "delete",
    "get",
    "list_replicas",
    "plan_create",
    "request_abandon",
    "request_create",
    "request_diagnose",
    "request_health",
    "request_restart",
    "request_stop",
]

#: Kept in ``spec`` for our own use; not part of what the user wrote.
_INNER = ("resolved", "granted_role", "environment_names")


def get(ctx: Context, replica_id: str) -> dict[str, Any]:
    """One replica with its attempts. Raises NotFound."""
    with ctx.database.read() as connection:
        rows = replicas.read_with_attempts(connection, replica_id)
        local = reach.local_urls(connection, ctx.settings.node_name, rows)
        ends = tunnels.of_replica(connection, replica_id)
    if not rows:
        raise _unknown(replica_id)
    row, attempts = rows[0], [_attempt(one) for one in rows if one.a_number is not None]
    last = attempts[-1] if attempts else None
    body = _body(row, local)
    if body["cleanup"] and last:
        body["cleanup"]["message"] = last["stop_trouble"]
    return body | {
        "attempts": attempts,
        "tunnels": [dict(end._mapping) | {"since": _iso(end.since)} for end in ends],
        "job_id": last["job_id"] if last else None,
        "cluster": last["cluster"] if last else None,
        "backend_ref": last["backend_ref"] if last else None,
        "log_tail": last["log_tail"] if last else "",
    }


def id_of_job(ctx: Context, job_id: str) -> str | None:
    """The replica behind what a cluster calls its job: the one for which it runs, else the only one that had it.

    None when there is none. Raises Conflict for several.
    """
    with ctx.database.read() as connection:
        return meant(job_id, "replicas", replicas.of_job(connection, job_id, MOST))


def list_replicas(
    ctx: Context, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], int, str | None]:
    """A page, newest first: (replicas, total, next cursor)."""
    behind = paging.decode(cursor, (datetime, str))
    with ctx.database.read() as connection:
        rows = replica_pages.replica_page(connection, filters, limit + 1, behind)
        total = replica_pages.total(connection, "replicas", filters)
        local = reach.local_urls(connection, ctx.settings.node_name, rows)
    more = paging.encode((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return [_body(row, local) for row in rows[:limit]], total, more


def delete(ctx: Context, actor: Actor, replica_id: str, idempotency: Idempotency | None = None) -> bool:
    """Forget a replica that has ended and is gone; its events stay. True for a replay.

    Raises NotFound, or Conflict while it lives or something of it is left.
    """

    def act(connection: Connection) -> bool:
        if idempotency and remembered.claim(connection, actor, idempotency) is not None:
            return True
        # tasks before replicas, as everywhere: the delete below takes them along
        connection.execute(text("SELECT 1 FROM tasks WHERE replica_id = :id FOR UPDATE"), {"id": replica_id})
        row = replicas.lock(connection, replica_id)
        if row is None:
            raise _unknown(replica_id)
        if row.state not in TERMINAL:
            raise Conflict(f"Replica {replica_id} is {row.state}. Stop it first: `hostler replica stop {replica_id}`.")
        if row.released_at is None:
            raise Conflict(
                f"Replica {replica_id} is {row.state}, but something of it is left since {_iso(row.state_since)}."
                f" Wait for its cleanup; `hostler replica explain {replica_id}` says what is in the way."
            )
        places = hidden_options.places_of(row.spec, row.backend)
        events.insert(
            connection,
            kind="replica_deleted",
            actor=actor.name,
            cause="delete requested",
            replica_id=replica_id,
            pool=row.pool,
            request_id=actor.request_id,
            data={"places": places} if places else None,
        )
        connection.execute(text("DELETE FROM replicas WHERE id = :id"), {"id": replica_id})
        if idempotency:
            remembered.remember(connection, actor, idempotency, {"replica_id": replica_id})
        return False

    if ctx.database.change(act):
        return True
    ctx.notify("events", f"replica:{replica_id}")
    return False


def cleanup_of(row: Any) -> dict[str, Any] | None:
    """``{"state": "pending", "since"}`` while an ended replica is not seen gone; in ``get`` also why (``message``)."""
    if row.state in TERMINAL and row.released_at is None:
        return {"state": "pending", "since": _iso(row.state_since)}
    return None


def _body(row: Any, local: Mapping[str, str]) -> dict[str, Any]:
    spec = dict(row.spec)
    names = spec.get("environment_names") or []
    shown = {name: value for name, value in spec.items() if name not in _INNER}
    return {
        "replica_id": row.id,
        "status": row.state,
        "reason": row.reason,
        "message": row.message,
        "server_mode": row.server_mode,
        "model_name": row.model_name,
        "pool": row.pool,
        "backend": row.backend,
        "engine": row.engine,
        "owner": row.owner,
        "labels": row.labels,
        "desired_state": row.desired_state,
        "base_url": row.base_url and local.get(row.id, row.base_url),
        "host": row.host,
        "port": row.port,
        "node": row.node,
        "attempt": row.attempt,
        "spec": mask(shown) | ({"environment": dict.fromkeys(names, MASK)} if names else {}),
        "diagnostics": row.diagnostics,
        "last_health": row.last_health,
        "timestamps": row.timestamps,
        "state_since": _iso(row.state_since),
        "deadline_at": _iso(row.deadline_at),
        "lifetime_ends_at": _iso(row.lifetime_ends_at),
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
        "released_at": _iso(row.released_at),
        "cleanup": cleanup_of(row),
    }


def _attempt(row: Any) -> dict[str, Any]:
    shown = {name: getattr(row, f"a_{name}") for name in replicas.ATTEMPT}
    shown |= {"job_id": row.a_job_id, "cluster": row.a_told}
    shown |= {"stop_trouble": row.a_stop_trouble, "left_behind_at": row.a_left_behind_at}
    return shown | {name: _iso(shown[name]) for name in ("launching_at", "ended_at", "released_at", "left_behind_at")}


def _unknown(replica_id: str) -> NotFound:
    return NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
