"""Draining: whoever is asked to end while it is routed takes nothing new and may finish what is in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.db.repos import drains as repo
from app.db.repos import gateways as gateways_repo
from app.db.repos import tasks
from app.domain.tasks import LIFECYCLE_KINDS, TaskKind
from app.doorbell.queues import queue_for
from app.settings import Settings
from app.usecases.context import Context


def seconds_of(settings: Settings, spec: Mapping[str, Any], asked: float | None = None) -> float:
    """What was asked now, else what the replica's create said (``gateway_config.drain_s``), else the setting."""
    if asked is not None:
        return asked
    said = (spec.get("gateway_config") or {}).get("drain_s")
    # a create of an older version took any value there
    return float(said) if isinstance(said, int | float) and 0 <= said <= 86400 else settings.drain_s


def record_idle(ctx: Context, gateway: str, servers: Sequence[str]) -> list[str]:
    """Nothing is in flight there at this gateway, and nothing comes. Returns the replicas whose drain ended by that:
    every live gateway has said so. They are ended at once."""
    with ctx.database.begin() as connection:
        idle = gateways_repo.record_idle(connection, gateway, servers)
    ended = []
    for replica_id, attempt in idle:
        row = ctx.database.change(partial(_end_if_idle, replica_id, attempt))
        if row is None:
            continue
        ended.append(replica_id)
        scope = {"node": row.node} if row.node else {"pool": row.pool}
        ctx.doorbell.ring(TaskKind.STOP, queue_for(TaskKind.STOP, row.pool, row.node), **scope)
        ctx.notify(f"due:{row.node or ''}", f"replica:{replica_id}")
    return ended


def _end_if_idle(replica_id: str, attempt: int, connection: Connection) -> Any | None:
    _open, row = tasks.lock_with_replica(connection, replica_id, LIFECYCLE_KINDS)
    if row is None or not repo.end_if_idle(connection, replica_id, attempt):
        return None
    return row
