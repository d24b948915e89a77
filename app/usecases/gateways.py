"""Gateways: who routes, what each may be routing to, and how one that will not come back is forgotten."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

from app.db.repos import events, leases
from app.db.repos import gateways as repo
from app.domain.routing import Member
from app.domain.tasks import TaskKind
from app.doorbell.queues import queue_for
from app.errors import Conflict, NotFound
from app.settings import Settings
from app.usecases import idempotency, paging
from app.usecases.context import Actor, Context, Idempotency
from app.usecases.reach import LOOPBACK


def gateway_id(settings: Settings) -> str:
    """This host's gateway: the same as long as its state dir is. Its files and its HAProxy go by that too."""
    mark = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()[:8]
    return f"{settings.node_name}-{mark}"


def heartbeat(ctx: Context, *, version: str, haproxy_up: bool) -> None:
    """This gateway's agent is alive."""
    settings = ctx.settings
    with ctx.database.begin() as connection:
        repo.heartbeat(
            connection,
            gateway=gateway_id(settings),
            node=settings.node_name,
            pid=os.getpid(),
            version=version,
            up=haproxy_up,
        )


def hold(ctx: Context, members: Iterable[Member]) -> set[str]:
    """Say that these are about to be routed. Returns the servers that may be: whose attempt is not gone.

    Raises Collided or Unavailable; then nothing may be routed that was not held before.
    """
    here = ctx.settings.node_name
    # the local end of a tunnel is a port of this host, though its attempt is on none of ours
    wanted = [
        (one.server, one.id, one.attempt, one.port, None if one.node or one.ip != LOOPBACK else here) for one in members
    ]
    return ctx.database.change(lambda connection: repo.hold(connection, gateway_id(ctx.settings), wanted))


def let_go(ctx: Context, servers: Sequence[str]) -> None:
    """HAProxy has these no more, and its file neither. Whoever waits for one of their ports is rung for."""
    with ctx.database.begin() as connection:
        nodes = repo.let_go(connection, gateway_id(ctx.settings), servers)
        pools = {pool for node in nodes for pool in leases.pools_short_of(connection, node, "")}
    _ring(ctx, pools)


def list_gateways(ctx: Context, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], int, str | None]:
    """(gateways, total, next cursor) by id."""
    after = paging.decode(cursor, (str,))
    with ctx.database.read() as connection:
        rows = repo.page(connection, after=after[0] if after else None, limit=limit + 1)
        total = repo.count(connection)
    more = paging.encode((rows[limit - 1].id,)) if len(rows) > limit else None
    return [_body(row) for row in rows[:limit]], total, more


def forget(ctx: Context, actor: Actor, gateway: str, request: Idempotency | None = None) -> bool:
    """Declare a gateway gone: ports that it may be routing to are free. True for a replay.

    Raises NotFound, and Conflict for one that lives: its rows would only come back.
    """
    with ctx.database.begin() as connection:
        if request and idempotency.claim(connection, actor, request) is not None:
            return True
        row = repo.lock(connection, gateway)
        if row is None:
            raise NotFound(f"There is no gateway {gateway!r}. `hostler gateway list` shows them.")
        if row.live:
            raise Conflict(f"Gateway {gateway} is alive. Stop its host's stack first, then forget it.")
        repo.forget(connection, gateway)
        events.insert(
            connection,
            kind="gateway_forgotten",
            actor=actor.name,
            cause="request",
            node=row.node,
            message=f"gateway {gateway}",
            request_id=actor.request_id,
        )
        if request:
            idempotency.remember(connection, actor, request, {"id": gateway})
        pools = leases.pools_short_of(connection, row.node, "")
    _ring(ctx, pools)
    ctx.notify("events")
    return False


def forget_silent(ctx: Context) -> int:
    """Declare those gone that were silent for HOSTLER_GATEWAY_SILENCE_S; how many there were."""
    with ctx.database.begin() as connection:
        gone = repo.forget_silent(connection, ctx.settings.gateway_silence_s)
        for row in gone:
            events.insert(
                connection,
                kind="gateway_forgotten",
                actor="hostler",
                cause=f"not heard of for {ctx.settings.gateway_silence_s:g} s",
                node=row.node,
                message=f"gateway {row.id}",
            )
    if gone:
        ctx.notify("events")
    return len(gone)


def _ring(ctx: Context, pools: Iterable[str]) -> None:
    for pool in pools:
        ctx.doorbell.ring(TaskKind.CREATE, queue_for(TaskKind.CREATE, pool, None), pool=pool)


def _body(row: Any) -> dict[str, Any]:
    found = dict(row._mapping)
    found["state"] = "up" if found.pop("live") else "lost"
    return found
