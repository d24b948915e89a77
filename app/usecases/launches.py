"""Launching, step by step: each step is one short transaction, fenced by the claim's token.

A step that answers False lost the replica to somebody newer (a stop, another worker): drop the result and go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from app.db.repos import replicas, tasks
from app.db.repos.replicas import Move
from app.domain.lifecycle import LAUNCHING, State
from app.domain.tasks import Phase
from app.usecases.context import Context
from app.usecases.launch_claims import LaunchClaim
from app.usecases.reach import LOOPBACK, Address

#: After so many workers died over one launch it is given up.
MAX_CLAIMS = 4
DEFAULT_READINESS_S = 1800.0
DEFAULT_START_S = 600.0


def record_launching(ctx: Context, claim: LaunchClaim, *, may_queue: bool) -> bool:
    """About to ask the backend: from here on an outside thing may exist under ``claim.name``.

    ``may_queue``: the backend has a queue of its own, and it stays in ``scheduling`` until it is seen to run.
    """
    path = _path_to(claim.state, State.STARTING)
    lifetime_s = (claim.row.spec.get("job") or {}).get("job_timeout_s")
    if lifetime_s is not None:
        with ctx.database.read() as connection:
            _begin_lifetime(connection, claim.replica_id, float(lifetime_s))
    if len(path) == 1:
        # taken over from a worker that died further on
        return _hold(ctx, claim, Phase.LAUNCHING)
    if may_queue:
        return _hand_over(ctx, claim)
    start_s = float(claim.timeouts.get("port_discovery_timeout_s") or DEFAULT_START_S)
    return _step(ctx, claim, _move(claim, path, "launching", deadline_s=start_s, phase=Phase.LAUNCHING, launching=True))


def record_launched(ctx: Context, claim: LaunchClaim, handle: Mapping[str, Any], *, leave: bool) -> bool:
    """The backend took it and it was seen alive. ``leave`` hands the wait for readiness to the sweep."""
    path = _path_to(claim.state, State.WAITING_FOR_READY)
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
        # tasks before replicas, as everywhere: a stop that comes now locks them in that order
        held = tasks.set_phase(connection, claim.task_id, claim.lease_token, Phase.LAUNCHING, release=True)
        _save_handle(connection, claim, handle)
        _check_now(connection, claim)
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
    url = base_url(claim.host, claim.port)
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


def give_back(ctx: Context, claim: LaunchClaim, delay_s: float, claims: int | None = None) -> None:
    """Something unexpected stopped the launch: queue it again, so that nobody waits for the lease to run out.

    ``claims``: so many count against it from now on; None: all.
    """
    with ctx.database.begin() as connection:
        tasks.put_back(connection, claim.task_id, claim.lease_token, delay_s=delay_s, claims=claims)


def start_is_overdue(ctx: Context, claim: LaunchClaim) -> bool:
    """Whether the attempt had all its time to start (``port_discovery_timeout_s``) since it got its place."""
    query = text(
        "SELECT created_at + make_interval(secs => CAST(:start_s AS float8)) <= hostler_now() FROM attempts"
        " WHERE id = :id"
    )
    start_s = float(claim.timeouts.get("port_discovery_timeout_s") or DEFAULT_START_S)
    with ctx.database.read() as connection:
        return connection.execute(query, {"id": claim.attempt_id, "start_s": start_s}).scalar() is not False


def base_url(host: str | None, port: int | None) -> str | None:
    """Where the engine answers: ``http://127.0.0.1:20001``; None where nothing runs (mock backend), or while that is
    not known."""
    return Address(host or LOOPBACK, port).url if port else None


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
    _tell(ctx, claim, due=move.next_check_s == 0, ended=move.succeeds)
    return bool(moved)


def _hold(ctx: Context, claim: LaunchClaim, phase: Phase, *, let_go: bool = False) -> bool:
    with ctx.database.begin() as connection:
        held = tasks.set_phase(connection, claim.task_id, claim.lease_token, phase, release=let_go)
        if let_go:
            _check_now(connection, claim)
    _tell(ctx, claim, due=let_go)
    return held


def _save_handle(connection: Connection, claim: LaunchClaim, handle: Mapping[str, Any]) -> None:
    connection.execute(
        text("UPDATE attempts SET backend_ref = CAST(:ref AS jsonb) WHERE id = :id AND released_at IS NULL"),
        {"id": claim.attempt_id, "ref": json.dumps(dict(handle))},
    )


def _hand_over(ctx: Context, claim: LaunchClaim) -> bool:
    queue_s = claim.timeouts.get("queue_timeout_s")
    with ctx.database.begin() as connection:
        # a stop that came meanwhile has ended the task
        if not tasks.set_phase(connection, claim.task_id, claim.lease_token, Phase.LAUNCHING):
            return False
        connection.execute(_HAND_OVER, {"id": claim.replica_id, "attempt_id": claim.attempt_id, "queue_s": queue_s})
    _tell(ctx, claim)
    return True


_HAND_OVER = text(
    """
WITH queued AS (
    -- the cluster's queue has a clock of its own, which begins with the first try
    UPDATE replicas r SET deadline_at = hostler_now() + make_interval(secs => CAST(:queue_s AS float8)),
        version = r.version + 1
    FROM attempts a WHERE r.id = :id AND a.id = :attempt_id AND a.launching_at IS NULL AND r.state = 'scheduling'
)
UPDATE attempts SET launching_at = coalesce(launching_at, hostler_now()) WHERE id = :attempt_id
"""
)


def _path_to(state: State, target: State) -> tuple[State, ...]:
    order = (*LAUNCHING, State.READY)
    return order[order.index(state) : order.index(target) + 1] or (target,)


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


def _tell(ctx: Context, claim: LaunchClaim, *, due: bool = False, ended: bool = False) -> None:
    more = [f"due:{ctx.settings.node_name if claim.host else ''}"] if due else []
    more += [f"task:{claim.task_id}"] if ended else []
    # whoever asked for a real engine waits for it; those of backends without one become ready by the hundred
    at_once = ended and claim.port is not None
    ctx.notify("events", f"replica:{claim.replica_id}", *more, at_once=at_once)
