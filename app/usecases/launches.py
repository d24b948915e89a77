"""Launching, step by step: each step is one short transaction, fenced by the claim's token.

A step that answers False lost the replica to somebody newer (a stop, another worker): drop the result and go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import leases, replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import LAUNCHING, State
from app.domain.placement import gpus_wanted
from app.domain.tasks import Phase
from app.usecases.context import Context

#: After so many workers died over one launch it is given up.
MAX_CLAIMS = 4
DEFAULT_READINESS_S = 1800.0
DEFAULT_START_S = 600.0


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


def claim_launch(ctx: Context, *, pool: str | None, worker: str) -> LaunchClaim | None:
    """Take the best create or restart together with its slot, port and GPU leases; None when there is nothing to do.

    ``pool`` None takes what is bound to this node. Full is not an error: what waits is claimed when room is returned.
    """
    try:
        return _claim(ctx, pool, worker, room=True)
    except NoRoom:
        # a launch whose worker died holds its capacity already and must not wait for more
        return _claim(ctx, pool, worker, room=False)


def record_launching(ctx: Context, claim: LaunchClaim) -> bool:
    """About to ask the backend: from here on an outside thing may exist under ``claim.name``."""
    path = _path_to(claim.state, State.STARTING)
    lifetime_s = (claim.row.spec.get("job") or {}).get("job_timeout_s")
    if lifetime_s is not None:
        with ctx.database.read() as connection:
            _begin_lifetime(connection, claim.replica_id, float(lifetime_s))
    if len(path) == 1:
        # taken over from a worker that died further on
        return _hold(ctx, claim, Phase.LAUNCHING)
    start_s = float(claim.timeouts.get("port_discovery_timeout_s") or DEFAULT_START_S)
    return _step(ctx, claim, _move(claim, path, "launching", deadline_s=start_s, phase=Phase.LAUNCHING, launching=True))


def record_launched(ctx: Context, claim: LaunchClaim, handle: Mapping[str, Any], *, leave: bool) -> bool:
    """The backend took it and it was seen alive. ``leave`` hands the wait for readiness to the sweep."""
    path = _path_to(claim.state, State.WAITING_FOR_READY, via=State.STARTING)
    if len(path) == 1:
        with ctx.database.begin() as connection:
            _save_handle(connection, claim, handle)
        return _hold(ctx, claim, Phase.WAITING_FOR_READY, let_go=leave)
    readiness_s = float(claim.timeouts.get("readiness_timeout_s") or DEFAULT_READINESS_S)
    move = _move(
        claim,
        path,
        "seen alive",
        deadline_s=readiness_s,
        next_check_s=0 if leave else 2.0,
        phase=Phase.WAITING_FOR_READY,
        let_go=leave,
        handle=handle,
    )
    return _step(ctx, claim, move)


def record_handle(ctx: Context, claim: LaunchClaim, handle: Mapping[str, Any]) -> bool:
    """The backend took it but it is not running yet (a queue, a delay): the sweep follows it from here."""
    with ctx.database.begin() as connection:
        _save_handle(connection, claim, handle)
        _check_now(connection, claim)
        held = tasks.set_phase(connection, claim.task_id, claim.lease_token, Phase.LAUNCHING, release=True)
    _tell(ctx, claim, due=True)
    return held


def leave_to_sweep(ctx: Context, claim: LaunchClaim) -> None:
    """Let go of a launch that is not ready yet; the node's agent looks at it from now on."""
    with ctx.database.begin() as connection:
        tasks.set_phase(connection, claim.task_id, claim.lease_token, Phase.WAITING_FOR_READY, release=True)
        _check_now(connection, claim)
    _tell(ctx, claim, due=True)


def record_ready(
    ctx: Context,
    claim: LaunchClaim,
    handle: Mapping[str, Any],
    diagnostics: Mapping[str, Any] | None,
    from_: State,
    log_tail: str = "",
) -> bool:
    """It answers, and its diagnostics passed when they were asked for. The task succeeds in the same transaction.

    ``log_tail`` is for backends that leave no file to read.
    """
    url = base_url(claim.row, claim.port)
    patch: dict[str, Any] = {"base_url": url, "check_failures": 0}
    if diagnostics is not None:
        patch["diagnostics"] = diagnostics
    move = _move(
        claim,
        _path_to(from_, State.READY),
        "answers its readiness probe",
        # a process is watched for its death from now on; what has none is looked at in its turn
        next_check_s=0 if claim.port else ctx.settings.probe_interval_s,
        patch=patch,
        handle=handle,
        log_tail=log_tail,
        succeeds=True,
        outcome=f"replica {claim.replica_id} is ready",
        result={"base_url": url},
    )
    return _step(ctx, claim, move)


def give_back(ctx: Context, claim: LaunchClaim, delay_s: float) -> None:
    """Something unexpected stopped the launch: queue it again, so that nobody waits for the lease to run out."""
    with ctx.database.begin() as connection:
        tasks.put_back(connection, claim.task_id, claim.lease_token, delay_s=delay_s)


def base_url(row: Any, port: int | None) -> str | None:
    """Where the engine answers: ``http://127.0.0.1:20001``; None where nothing runs (mock backend)."""
    return f"http://127.0.0.1:{port}" if port else None


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

_OPEN_ATTEMPT = text(
    """
WITH made AS (
    INSERT INTO attempts (replica_id, number, name, pool, backend, node)
    VALUES (:replica_id, :number, :name, :pool, :backend, :node) RETURNING id
),
free AS MATERIALIZED (
    SELECT kind, scope, number FROM units WHERE kind = 'slot' AND scope = :pool AND lease_id IS NULL AND NOT retired
    ORDER BY last_freed_at NULLS FIRST, number LIMIT 1 FOR UPDATE SKIP LOCKED
),
leased AS (
    INSERT INTO leases (kind, scope, number, attempt_id, holder)
    SELECT free.kind, free.scope, free.number, made.id, :name FROM free, made RETURNING id, kind, scope, number
),
held AS (
    UPDATE units u SET lease_id = leased.id FROM leased
    WHERE u.kind = leased.kind AND u.scope = leased.scope AND u.number = leased.number RETURNING u.number
)
SELECT made.id, (SELECT count(*) FROM held) AS slots FROM made
"""
)


def _claim(ctx: Context, pool: str | None, worker: str, *, room: bool) -> LaunchClaim | None:
    node = ctx.settings.node_name
    with ctx.database.begin() as connection:
        task = tasks.claim_launch(
            connection, pool=pool, node=node, worker=worker, lease_s=ctx.settings.lease_s, room=room
        )
        if task is None:
            return None
        row = connection.execute(_LOAD, {"id": task.replica_id, "node": node, "by_pool": pool is not None}).one()
        if row.open_attempt_id is None:
            claim = _take_capacity(ctx, connection, row, task, node)
        else:
            held = leases.held(connection, row.open_attempt_id)
            port = next(iter(held.get("port") or ()), None)
            state, gpus = State(row.state), tuple(held.get("gpu") or ())
            claim = _made(row, task, row.open_attempt_id, row.open_attempt_name, state, port, gpus)
    _tell(ctx, claim)
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


def _take_capacity(ctx: Context, connection: Connection, row: Any, task: Any, node: str) -> LaunchClaim:
    name = f"hostler-{ctx.namespace}-{row.id}-{task.attempt}"
    attempt = connection.execute(
        _OPEN_ATTEMPT,
        {
            "replica_id": row.id,
            "number": task.attempt,
            "name": name,
            "pool": row.pool,
            "backend": row.backend,
            "node": node if row.host_bound else None,
        },
    ).one()
    if not attempt.slots:
        raise NoRoom
    wanted = gpus_wanted(row.spec)
    port: int | None = None
    gpus: tuple[int, ...] = ()
    if row.pool_gpus is not None:
        _take(connection, "pool_gpu", row.pool, wanted, attempt.id, name)
    if row.host_bound:
        gpus = tuple(_take(connection, "gpu", node, wanted, attempt.id, name))
        port = _take(connection, "port", node, 1, attempt.id, name)[0]
        connection.execute(
            text(
                "WITH a AS (UPDATE attempts SET port = :port WHERE id = :id)"
                " UPDATE tasks SET node = :node WHERE id = :task_id"
            ),
            {"port": port, "id": attempt.id, "node": node, "task_id": task.id},
        )
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


def _take(connection: Connection, kind: str, scope: str, count: int, attempt_id: int, name: str) -> list[int]:
    taken = leases.take(connection, kind, scope, count, attempt_id, name)
    if len(taken) < count:
        raise NoRoom
    return taken


def _begin_lifetime(connection: Connection, replica_id: str, lifetime_s: float) -> None:
    connection.execute(
        text(
            "UPDATE replicas SET lifetime_ends_at ="
            " coalesce(lifetime_ends_at, hostler_now() + make_interval(secs => :lifetime_s))"
            # a replica that was stopped meanwhile must not keep an old end for its next attempt
            " WHERE id = :id AND state IN ('scheduling', 'preparing', 'starting', 'waiting_for_ready')"
        ),
        {"id": replica_id, "lifetime_s": lifetime_s},
    )


def _check_now(connection: Connection, claim: LaunchClaim) -> None:
    connection.execute(
        text(
            "UPDATE replicas SET next_check_at = hostler_now() WHERE id = :id AND attempt = :attempt"
            " AND released_at IS NULL"
        ),
        {"id": claim.replica_id, "attempt": claim.attempt},
    )


def _step(ctx: Context, claim: LaunchClaim, move: Move) -> bool:
    # one statement, and so its own transaction
    with ctx.database.read() as connection:
        moved = replicas.record_moves(connection, [move])
    _tell(ctx, claim, due=move.next_check_s == 0)
    return bool(moved)


def _hold(ctx: Context, claim: LaunchClaim, phase: Phase, *, let_go: bool = False) -> bool:
    with ctx.database.begin() as connection:
        if let_go:
            _check_now(connection, claim)
        held = tasks.set_phase(connection, claim.task_id, claim.lease_token, phase, release=let_go)
    _tell(ctx, claim, due=let_go)
    return held


def _save_handle(connection: Connection, claim: LaunchClaim, handle: Mapping[str, Any]) -> None:
    connection.execute(
        text("UPDATE attempts SET backend_ref = CAST(:ref AS jsonb) WHERE id = :id AND released_at IS NULL"),
        {"id": claim.attempt_id, "ref": json.dumps(dict(handle))},
    )


def _path_to(state: State, target: State, via: State | None = None) -> tuple[State, ...]:
    order = (*LAUNCHING, State.READY)
    start = order.index(via) if via and order.index(via) > order.index(state) else order.index(state)
    return order[start : order.index(target) + 1] or (target,)


def _move(claim: LaunchClaim, path: tuple[State, ...], cause: str, **more: Any) -> Move:
    return Move(
        claim.replica_id,
        claim.attempt,
        path,
        cause=cause,
        task_id=claim.task_id,
        lease_token=claim.lease_token,
        request_id=claim.request_id,
        **more,
    )


def _tell(ctx: Context, claim: LaunchClaim, *, due: bool = False) -> None:
    soon = (f"due:{ctx.settings.node_name}",) if due else ()
    ctx.notify("events", f"replica:{claim.replica_id}", f"task:{claim.task_id}", *soon)
