"""Claiming a launch: the best create or restart together with its slot, port and GPUs, in one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas, tasks
from app.domain.lifecycle import Reason, State
from app.domain.placement import gpus_wanted
from app.usecases import capacity, ends, gangs
from app.usecases.capacity import NeverFits, NoGpus, NoRoom, Overtaking
from app.usecases.context import Context
from app.usecases.ends import End

#: How often a claim lets a better one go first, and how long it waits for that.
TURNS = 10
TURN_S = 0.005
#: Creates of gangs that one claim passes over.
MOST_ASIDE = 500


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
    #: where it is to listen; None where only the backend finds out
    host: str | None
    port: int | None
    #: of the host it is bound to; else of the pool, or as many as it wants where the pool does not count them
    gpus: tuple[int, ...]
    row: Any
    request_id: str
    claims: int
    #: whether the queue held more when this was taken: ring again
    more: bool

    @property
    def timeouts(self) -> Mapping[str, Any]:
        return self.row.spec.get("timeouts") or {}


def claim_launch(ctx: Context, *, pool: str | None, worker: str) -> LaunchClaim | None:
    """Take the best create or restart together with its slot, port and GPU leases; None when there is nothing to do.

    ``pool`` None takes what is bound to this node. Full is not an error: what waits is claimed when room is returned.
    """
    aside: list[str] = []
    anew = False
    blocked: NoRoom | None = None
    turns = 0
    while turns < TURNS and len(aside) < MOST_ASIDE:
        turns += 1
        try:
            return _claim_best(ctx, pool, worker, aside, anew)
        except Overtaking:
            time.sleep(TURN_S)
        except gangs.StepsAside as gang:
            aside += gang.task_ids
            turns -= 1
        except gangs.RoomCame:
            aside, anew = [], True
        except NeverFits as never:
            # it would hold up all that wait behind it for ever
            end = End(Reason.NO_CAPACITY, str(never), gone=True)
            ends.record_failed(ctx, never.replica_id, never.attempt, State.PENDING, end)
        except NoRoom as why:
            blocked = why
            break
    # a launch whose worker died holds its capacity already and must not wait for more
    found = _claim(ctx, pool, worker, room=False)
    if found is None and isinstance(blocked, NoGpus) and pool is not None:
        try:
            return _claim(ctx, pool, worker, passing=True, left=blocked.left)
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
SELECT r.*, p.gpus AS pool_gpus, p.options AS pool_options, b.host_bound,
    a.id AS open_attempt_id, a.name AS open_attempt_name,
    EXISTS (SELECT 1 FROM tasks t WHERE t.state = 'queued' AND t.kind IN ('create', 'restart')
        AND CASE WHEN :by_pool THEN t.pool = r.pool ELSE t.node = :node END) AS more
FROM replicas r JOIN pools p ON p.name = r.pool JOIN backends b ON b.name = r.backend
LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = r.attempt
WHERE r.id = :id
"""
)


def _claim_best(ctx: Context, pool: str | None, worker: str, aside: Sequence[str], anew: bool) -> LaunchClaim | None:
    """The best one but ``aside``. One of a gang gets its capacity together with the others, and is then a launch that
    holds it already."""
    while True:
        try:
            return _claim(ctx, pool, worker, aside=aside)
        except gangs.OfGang as found:
            gang, task_id = found.gang, found.task_id
        if gangs.take(ctx, gang, task_id, worker, aside, anew=anew):
            return _claim(ctx, pool, worker, room=False)


def _claim(
    ctx: Context,
    pool: str | None,
    worker: str,
    *,
    room: bool = True,
    passing: bool = False,
    left: int = 1,
    aside: Sequence[str] = (),
) -> LaunchClaim | None:
    node = ctx.settings.node_name

    def act(connection: Connection) -> LaunchClaim | None:
        held: dict[str, Any] = {"node": node, "worker": worker, "lease_s": ctx.settings.lease_s}
        if passing and pool is not None:
            task = tasks.claim_passing(connection, pool=pool, left=left, **held)
        else:
            task = tasks.claim_launch(connection, pool=pool, room=room, aside=aside, **held)
        if task is None:
            return None
        row = connection.execute(_LOAD, {"id": task.replica_id, "node": node, "by_pool": pool is not None}).one()
        if row.open_attempt_id is None:
            if task.arguments.get("gang"):
                raise gangs.OfGang(task.arguments["gang"], task.id)
            return _take_capacity(ctx, connection, row, task, passing=passing, aside=aside)
        units = leases.held(connection, row.open_attempt_id)
        port = next(iter(units.get("port") or ()), None)
        gpus = capacity.gpus_of(row, units)
        return _made(row, task, row.open_attempt_id, row.open_attempt_name, State(row.state), row.host, port, gpus)

    # a claim that lost against a user's stop of the same replica has lost that one row, not its turn
    claim = ctx.database.change(act)
    if claim is not None:
        ctx.notify("events", f"replica:{claim.replica_id}")
    return claim


def _made(
    row: Any,
    task: Any,
    attempt_id: int,
    name: str,
    state: State,
    host: str | None,
    port: int | None,
    gpus: tuple[int, ...],
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
        host=host,
        port=port,
        gpus=gpus,
        row=row,
        request_id=task.request_id,
        claims=task.claims,
        more=row.more,
    )


def _take_capacity(
    ctx: Context, connection: Connection, row: Any, task: Any, *, passing: bool, aside: Sequence[str]
) -> LaunchClaim:
    name, node = capacity.attempt_name(ctx, row.id, task.attempt), ctx.settings.node_name
    opened = capacity.open_attempt(connection, row, task_id=task.id, number=task.attempt, name=name, node=node)
    scarce = opened.scarce or gpus_wanted(row.spec)
    if scarce and not passing and tasks.is_overtaking(connection, task.id, row.pool, aside):
        raise Overtaking
    if not opened.slots:
        raise NoRoom
    capacity.check_fits(connection, row, task.attempt)
    gpus = capacity.take_gpus(connection, row, opened, name, node)
    if not replicas.record_moves(connection, [capacity.claimed(ctx, row, task, opened.port)]):
        raise NoRoom
    host = ctx.settings.node_address if row.host_bound else None
    return _made(row, task, opened.id, name, State.SCHEDULING, host, opened.port, gpus)


def take_place(ctx: Context, claim: LaunchClaim, place_options: Sequence[str]) -> LaunchClaim:
    """The claim at the place that its pool names now, if no launch of its replica ever began: nothing can be at the
    place that the pool named before. ``place_options`` are those that make a place."""
    settled = claim.row.spec["resolved"]
    options, pool = settled["backend_options"], claim.row.pool_options
    names = [name for name in place_options if name not in settled.get("not_of_pool", ())]
    if all(options.get(name) == pool.get(name) for name in names):
        return claim
    now = {name: value for name, value in options.items() if name not in names}
    now |= {name: pool[name] for name in names if name in pool}
    values = {"id": claim.replica_id, "attempt": claim.attempt, "options": json.dumps(now)}
    with ctx.database.begin() as connection:
        held = tasks.lock_held(connection, claim.task_id, claim.lease_token)
        if not held or connection.execute(_TAKE_PLACE, values).first() is None:
            return claim
    spec = {**claim.row.spec, "resolved": {**settled, "backend_options": now}}
    return replace(claim, row=SimpleNamespace(**{**claim.row._mapping, "spec": spec}))


_TAKE_PLACE = text(
    """
UPDATE replicas r SET spec = jsonb_set(
        jsonb_set(spec, '{resolved,backend_options}', CAST(:options AS jsonb)),
        -- what was told of the places before names them still
        '{resolved,places_before}',
        coalesce(spec->'resolved'->'places_before', '[]') || jsonb_build_array(spec->'resolved'->'backend_options')
    ),
    version = version + 1
WHERE id = :id AND attempt = :attempt
  AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.replica_id = r.id AND a.launching_at IS NOT NULL)
RETURNING id
"""
)


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
