"""The capacity of one launch: its attempt, opened together with the leases of slot, port and GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, nodes
from app.db.repos.gateways import PORT_IS_FREE
from app.db.repos.replicas import Move
from app.domain.lifecycle import State
from app.domain.placement import gpus_wanted
from app.usecases.context import Context

#: With fewer free slots than this, or where GPUs are asked for, claims take turns: otherwise the one that is faster by
#: a millisecond could take the last slot from a better one.
SCARCE = 8


class NoRoom(Exception):
    """The pool or node has no free slot, port or GPU for the best row."""


class NoGpus(NoRoom):
    """The best row waits for GPUs. What wants none may pass it, while ``left`` slots and ports are left over for it."""

    def __init__(self, left: int = 1) -> None:
        super().__init__()
        self.left = left


class Overtaking(NoRoom):
    """Capacity is scarce, and who takes a better row this very moment must have it first."""


class NeverFits(NoRoom):
    """No host, or not the whole pool, has as many GPUs as the best row wants: waiting does not help."""

    def __init__(self, replica_id: str, attempt: int, message: str) -> None:
        super().__init__(message)
        self.replica_id, self.attempt = replica_id, attempt


# One statement, because each round trip holds up the launch. ``node`` is NULL unless the backend is bound to its host:
# then a port of that host is leased with the slot, and what follows goes to that node's queue.
_OPEN_ATTEMPT = text(
    f"""
WITH slot AS MATERIALIZED (
    SELECT kind, scope, number FROM units WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL AND NOT retired
    ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 FOR UPDATE SKIP LOCKED
),
port AS MATERIALIZED (
    SELECT kind, scope, number FROM units
    WHERE kind = 'port' AND scope = CAST(:node AS text) AND lease_id IS NULL AND NOT retired AND {PORT_IS_FREE}
    ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 FOR UPDATE SKIP LOCKED
),
made AS (
    INSERT INTO attempts (replica_id, number, name, pool, backend, node, port)
    VALUES (:replica_id, :number, :name, :pool, :backend, :node, (SELECT number FROM port)) RETURNING id, port
),
leased AS (
    INSERT INTO leases (kind, scope, number, attempt_id, holder)
    SELECT free.kind, free.scope, free.number, made.id, :name
    FROM (SELECT * FROM slot UNION ALL SELECT * FROM port) AS free, made RETURNING id, kind, scope, number
),
held AS (
    UPDATE units u SET lease_id = leased.id FROM leased
    WHERE u.kind = leased.kind AND u.scope = leased.scope AND u.number = leased.number RETURNING u.kind
),
bound AS (UPDATE tasks SET node = :node WHERE id = :task_id AND CAST(:node AS text) IS NOT NULL)
SELECT made.id, made.port, (SELECT count(*) FROM held WHERE kind = 'slot') AS slots,
    (SELECT count(*) FROM (SELECT 1 FROM units WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL
        AND NOT retired ORDER BY last_freed_at NULLS FIRST, number LIMIT :scarce) AS found) < :scarce AS scarce
FROM made
"""
)


def attempt_name(ctx: Context, replica_id: str, number: int) -> str:
    """The mark that every outside thing of an attempt carries."""
    return f"hostler-{ctx.namespace}-{replica_id}-{number}"


def open_attempt(connection: Connection, row: Any, *, task_id: str, number: int, name: str, node: str) -> Any:
    """Open attempt ``number`` with a slot and, bound to ``node``, a port: ``id``, ``port`` (None: no free one),
    ``slots`` (0: no free one) and ``scarce``. ``row`` is the replica's, with ``host_bound``."""
    return connection.execute(
        _OPEN_ATTEMPT,
        {
            "replica_id": row.id,
            "number": number,
            "name": name,
            "pool": row.pool,
            "backend": row.backend,
            "node": node if row.host_bound else None,
            "task_id": task_id,
            "scarce": SCARCE,
        },
    ).one()


def take_gpus(connection: Connection, row: Any, opened: Any, name: str, node: str) -> tuple[int, ...]:
    """What the opened attempt needs beside its slot; returns ``gpus_of`` it. Raises NoRoom, NoGpus."""
    wanted = gpus_wanted(row.spec)
    units: dict[str, list[int]] = {}
    if row.pool_gpus is not None:
        units["pool_gpu"] = _take_gpus(connection, "pool_gpu", row.pool, wanted, opened.id, name)
    if row.host_bound:
        units["gpu"] = _take_gpus(connection, "gpu", node, wanted, opened.id, name)
        if opened.port is None:
            raise NoRoom
    return gpus_of(row, units)


def gpus_of(row: Any, units: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """What its backend is told of GPUs: those of the host that are leased to it; where it is bound to no host those of
    the pool, or just so many where the pool does not count them. ``units`` are the leased ones by kind."""
    if row.host_bound:
        return tuple(units.get("gpu", ()))
    return tuple(units.get("pool_gpu", ())) if row.pool_gpus is not None else tuple(range(gpus_wanted(row.spec)))


def claimed(ctx: Context, row: Any, task: Any, port: int | None, beside: int = 0) -> Move:
    """The step of a replica that got its capacity, ``beside`` others at once. ``task`` says id, attempt, request_id and
    lease_token (None where nobody holds it yet)."""
    return Move(
        row.id,
        task.attempt,
        (State.PENDING, State.SCHEDULING),
        cause="claimed with its slot"
        + (f", port {port}" if port else "")
        + (f", together with {beside} more of its service" if beside else ""),
        task_id=task.id,
        lease_token=task.lease_token,
        request_id=task.request_id,
        patch={"node": ctx.settings.node_name, "host": ctx.settings.node_address, "port": port}
        if row.host_bound
        else {},
    )


def check_fits(connection: Connection, row: Any, number: int) -> None:
    """Raises NeverFits for attempt ``number`` of a replica that wants more GPUs than there are."""
    wanted = gpus_wanted(row.spec)
    if row.pool_gpus is not None and wanted > row.pool_gpus:
        message = f"it wants {wanted} GPUs and pool {row.pool} has {row.pool_gpus}; see `hostler pool get {row.pool}`"
        raise NeverFits(row.id, number, message)
    if wanted == 0 or not row.host_bound:
        return
    query = text(
        "SELECT coalesce(max(gpus), 0) AS most, count(*) AS hosts FROM (SELECT count(*) FILTER (WHERE kind = 'gpu')"
        " AS gpus FROM units WHERE kind IN ('gpu', 'port') AND NOT retired AND scope <> ALL(:others)"
        " GROUP BY scope) AS by_node"
    )
    found = connection.execute(query, {"others": list(nodes.not_serving(connection, row.pool))}).one()
    # no host at all has said yet what it has: its agent is about to
    if found.hosts and wanted > found.most:
        message = f"it wants {wanted} GPUs and no host has more than {found.most}; see `hostler node list`"
        raise NeverFits(row.id, number, message)


def _take_gpus(connection: Connection, kind: str, scope: str, count: int, attempt_id: int, name: str) -> list[int]:
    taken = leases.take(connection, kind, scope, count, attempt_id, name)
    if len(taken) < count:
        raise NoGpus
    return taken
