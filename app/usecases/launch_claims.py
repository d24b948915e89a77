"""Claiming a launch: the best create or restart together with its slot, port and GPUs, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas, tasks
from app.db.repos.gateways import port_is_free
from app.db.repos.newer import Adapted
from app.db.repos.replicas import Move
from app.domain.lifecycle import Reason, State
from app.domain.placement import gpus_wanted
from app.usecases import ends
from app.usecases.context import Context
from app.usecases.ends import End

#: With fewer free slots than this, or where GPUs are asked for, claims take turns: otherwise the one that is faster by
#: a millisecond could take the last slot from a better one.
SCARCE = 8
#: How often a claim lets a better one go first, and how long it waits for that.
TURNS = 10
TURN_S = 0.005


@dataclass(frozen=True)
class LaunchClaim:
    """One launch, held by this worker until the lease runs out. ``row`` is the replica as read at the claim."""

    task_id: str
    lease_token: str
    kind: str
    replica_id: str
    attempt: int
    attempt_id: int
    name: str
    state: State
    port: int | None
    gpus: tuple[int, ...]
    row: Any
    request_id: str
    claims: int
    #: whether the queue held more when this was taken: ring again
    more: bool

    @property
    def timeouts(self) -> Mapping[str, Any]:
        return self.row.spec.get("timeouts") or {}


class NoRoom(Exception):
    """The pool or node has no free slot, port or GPU for the best row."""


class NoGpus(NoRoom):
    """The best row waits for GPUs. What wants none may pass it."""


class Overtaking(NoRoom):
    """Capacity is scarce, and who takes a better row this very moment must have it first."""


class NeverFits(NoRoom):
    """No host, or not the whole pool, has as many GPUs as the best row wants: waiting does not help."""

    def __init__(self, replica_id: str, attempt: int, message: str) -> None:
        super().__init__(message)
        self.replica_id, self.attempt = replica_id, attempt


def claim_launch(ctx: Context, *, pool: str | None, worker: str) -> LaunchClaim | None:
    """Take the best create or restart together with its slot, port and GPU leases; None when there is nothing to do.

    ``pool`` None takes what is bound to this node. Full is not an error: what waits is claimed when room is returned.
    """
    blocked = False
    for _ in range(TURNS):
        try:
            return _claim(ctx, pool, worker, room=True)
        except Overtaking:
            time.sleep(TURN_S)
        except NeverFits as never:
            # it would hold up all that wait behind it for ever
            end = End(Reason.NO_CAPACITY, str(never), gone=True)
            ends.record_failed(ctx, never.replica_id, never.attempt, State.PENDING, end)
        except NoRoom as why:
            blocked = isinstance(why, NoGpus)
            break
    # a launch whose worker died holds its capacity already and must not wait for more
    found = _claim(ctx, pool, worker, room=False)
    if found is None and blocked and pool is not None:
        try:
            return _claim(ctx, pool, worker, passing=True)
        except NoRoom:
            return None
    return found


def rehearse(ctx: Context) -> None:
    """Have this process's connections plan what every launch asks of them, before one waits for it.

    Two of them: a launch and the thread that tells of it.
    """
    nothing = {"id": "", "node": "", "by_pool": False}
    with ctx.database.read() as first, ctx.database.read() as second:
        for connection in (first, second) * _PLANNED_AFTER:
            tasks.claim_launch(connection, pool=None, node="", worker="", lease_s=0)
            tasks.claim_launch(connection, pool="-", node="", worker="", lease_s=0)
            connection.execute(_LOAD, nothing)
            replicas.rehearse(connection)


#: Executions after which driver and server keep a statement's plan.
_PLANNED_AFTER = 10

_LOAD = text(
    """
SELECT r.*, p.gpus AS pool_gpus, b.host_bound, a.id AS open_attempt_id, a.name AS open_attempt_name,
    EXISTS (SELECT 1 FROM tasks t WHERE t.state = 'queued' AND t.kind IN ('create', 'restart')
        AND CASE WHEN :by_pool THEN t.pool = r.pool ELSE t.node = :node END) AS more
FROM replicas r JOIN pools p ON p.name = r.pool JOIN backends b ON b.name = r.backend
LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
WHERE r.id = :id
"""
)

# One statement, because each round trip holds up the launch. ``node`` is NULL unless the backend is bound to its host:
# then a port of that host is leased with the slot, and what follows goes to that node's queue.
_OPEN_ATTEMPT = Adapted(
    lambda known: (
        f"""
WITH slot AS MATERIALIZED (
    SELECT kind, scope, number FROM units WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL AND NOT retired
    ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 FOR UPDATE SKIP LOCKED
),
port AS MATERIALIZED (
    SELECT kind, scope, number FROM units
    WHERE kind = 'port' AND scope = CAST(:node AS text) AND lease_id IS NULL AND NOT retired AND {port_is_free(known)}
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
)


def _claim(
    ctx: Context, pool: str | None, worker: str, *, room: bool = True, passing: bool = False
) -> LaunchClaim | None:
    node = ctx.settings.node_name

    def act(connection: Connection) -> LaunchClaim | None:
        lease_s = ctx.settings.lease_s
        if passing and pool is not None:
            task = tasks.claim_passing(connection, pool=pool, node=node, worker=worker, lease_s=lease_s)
        else:
            task = tasks.claim_launch(connection, pool=pool, node=node, worker=worker, lease_s=lease_s, room=room)
        if task is None:
            return None
        row = connection.execute(_LOAD, {"id": task.replica_id, "node": node, "by_pool": pool is not None}).one()
        if row.open_attempt_id is None:
            return _take_capacity(ctx, connection, row, task, node, passing=passing)
        held = leases.held(connection, row.open_attempt_id)
        port = next(iter(held.get("port") or ()), None)
        state, gpus = State(row.state), tuple(held.get("gpu") or ())
        return _made(row, task, row.open_attempt_id, row.open_attempt_name, state, port, gpus)

    # a claim that lost against a user's stop of the same replica has lost that one row, not its turn
    claim = ctx.database.change(act)
    if claim is not None:
        ctx.notify("events", f"replica:{claim.replica_id}")
    return claim


def _made(
    row: Any, task: Any, attempt_id: int, name: str, state: State, port: int | None, gpus: tuple[int, ...]
) -> LaunchClaim:
    return LaunchClaim(
        task_id=task.id,
        lease_token=task.lease_token,
        kind=task.kind,
        replica_id=task.replica_id,
        attempt=task.attempt,
        attempt_id=attempt_id,
        name=name,
        state=state,
        port=port,
        gpus=gpus,
        row=row,
        request_id=task.request_id,
        claims=task.claims,
        more=row.more,
    )


def _take_capacity(
    ctx: Context, connection: Connection, row: Any, task: Any, node: str, *, passing: bool = False
) -> LaunchClaim:
    name = f"hostler-{ctx.namespace}-{row.id}-{task.attempt}"
    attempt = connection.execute(
        _OPEN_ATTEMPT.of(connection),
        {
            "replica_id": row.id,
            "number": task.attempt,
            "name": name,
            "pool": row.pool,
            "backend": row.backend,
            "node": node if row.host_bound else None,
            "task_id": task.id,
            "scarce": SCARCE,
        },
    ).one()
    wanted = gpus_wanted(row.spec)
    if (attempt.scarce or wanted) and not passing and tasks.is_overtaking(connection, task.id, row.pool):
        raise Overtaking
    if not attempt.slots:
        raise NoRoom
    gpus: tuple[int, ...] = ()
    _check_fits(connection, row, task, wanted)
    if row.pool_gpus is not None:
        _take_gpus(connection, "pool_gpu", row.pool, wanted, attempt.id, name)
    if row.host_bound:
        gpus = tuple(_take_gpus(connection, "gpu", node, wanted, attempt.id, name))
        if attempt.port is None:
            raise NoRoom
    port = attempt.port
    move = Move(
        row.id,
        task.attempt,
        (State.PENDING, State.SCHEDULING),
        cause="claimed with its slot" + (f", port {port}" if port else ""),
        task_id=task.id,
        lease_token=task.lease_token,
        request_id=task.request_id,
        patch={"node": node, "host": "127.0.0.1", "port": port} if row.host_bound else {},
    )
    if not replicas.record_moves(connection, [move]):
        raise NoRoom
    return _made(row, task, attempt.id, name, State.SCHEDULING, port, gpus)


def change_port(ctx: Context, claim: LaunchClaim) -> int | None:
    """Swap the leased port for another one: a stranger listens on it. None when there is no other.

    None as well when the claim was lost: the port is then what somebody else launched on.
    """
    node = ctx.settings.node_name
    with ctx.database.begin() as connection:
        if not tasks.lock_held(connection, claim.task_id, claim.lease_token):
            return None
        taken = leases.take(connection, "port", node, 1, claim.attempt_id, claim.name)
        if not taken:
            return None
        leases.give_back(connection, "port", node, [claim.port or 0], claim.attempt_id)
        connection.execute(
            text(
                "WITH a AS (UPDATE attempts SET port = :port WHERE id = :id)"
                " UPDATE replicas SET port = :port, version = version + 1 WHERE id = :replica_id AND attempt = :number"
            ),
            {"port": taken[0], "id": claim.attempt_id, "replica_id": claim.replica_id, "number": claim.attempt},
        )
    return taken[0]


def _take_gpus(connection: Connection, kind: str, scope: str, count: int, attempt_id: int, name: str) -> list[int]:
    taken = leases.take(connection, kind, scope, count, attempt_id, name)
    if len(taken) < count:
        raise NoGpus
    return taken


def _check_fits(connection: Connection, row: Any, task: Any, wanted: int) -> None:
    if row.pool_gpus is not None and wanted > row.pool_gpus:
        message = f"it wants {wanted} GPUs and pool {row.pool} has {row.pool_gpus}; see `hostler pool get {row.pool}`"
        raise NeverFits(row.id, task.attempt, message)
    if wanted == 0 or not row.host_bound:
        return
    query = text(
        "SELECT coalesce(max(gpus), 0) AS most, count(*) AS hosts FROM (SELECT count(*) FILTER (WHERE kind = 'gpu')"
        " AS gpus FROM units WHERE kind IN ('gpu', 'port') AND NOT retired GROUP BY scope) AS by_node"
    )
    found = connection.execute(query).one()
    # no host at all has said yet what it has: its agent is about to
    if found.hosts and wanted > found.most:
        message = f"it wants {wanted} GPUs and no host has more than {found.most}; see `hostler node list`"
        raise NeverFits(row.id, task.attempt, message)
